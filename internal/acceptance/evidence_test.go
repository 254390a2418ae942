package acceptance_test

import (
	"encoding/json"
	"testing"
	"time"
)

// half is what one node holds of a call.
type half struct {
	State   string
	Node    string
	Records []record
}

// record is one record of a call.
type record struct {
	Kind                            string
	Leaf                            int64
	Salt, Digest, Hash, Certificate string
	Head                            json.RawMessage
	Sealed                          time.Time `json:"sealed_at"`
	Envelope                        []byte
	Note                            json.RawMessage
}

// held is what both sides hold of a call.
type held struct {
	ID      string
	Halves  []half
	Missing string
}

// evidence asks a state's node, as the system that called.
func evidence(t *testing.T, u *union, state, id string) held {
	t.Helper()
	n := u.node(t, state)
	a := curl(t, "-H", "X-Road-Client: "+n.Client, n.R1+"/evidence/"+id).want(t, 200)
	var e held
	into(t, string(a.body), &e)
	return e
}
