package admin

import (
	"errors"
	"net/http"
	"syscall"
	"testing"

	"github.com/falaj/falaj/internal/fault"
)

type closed struct{}

func (closed) RoundTrip(*http.Request) (*http.Response, error) { return nil, syscall.EACCES }

// TestNoPermission: a socket of another account's is no missing node.
func TestNoPermission(t *testing.T) {
	c := &Client{&http.Client{Transport: closed{}}, "http://falaj"}
	var r *Refusal
	if err := c.Query(t.Context(), "node", nil, nil); !errors.As(err, &r) || r.Code != fault.NotAllowed || !r.Title.Complete() || !r.Do.Complete() {
		t.Errorf("%v", err)
	}
}
