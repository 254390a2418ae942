package admin

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Client speaks to a node's counter.
type Client struct {
	http *http.Client
	base string
}

// Dial makes a client of the counter at a Unix socket's path or, with a
// client certificate, at an https address. It connects when it is used.
func Dial(address string, conf *tls.Config) *Client {
	if strings.HasPrefix(address, "https://") {
		return &Client{&http.Client{Transport: &http.Transport{TLSClientConfig: conf}}, strings.TrimSuffix(address, "/")}
	}
	path := strings.TrimPrefix(address, "unix:")
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial}}, "http://falaj"}
}

// Query asks and reads the answer into out.
func (c *Client) Query(ctx context.Context, name string, params url.Values, out any) error {
	req, err := c.question(ctx, name, params)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

// Confide asks a question whose parameters may stand in no address.
func (c *Client) Confide(ctx context.Context, name string, params, out any) error {
	req, err := c.post(ctx, name, params)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

// Save asks for a File and writes it to w. seen is told after each piece how
// many bytes of how many have come.
func (c *Client) Save(ctx context.Context, name string, params url.Values, w io.Writer, seen func(done, all int64)) error {
	req, err := c.question(ctx, name, params)
	if err != nil {
		return err
	}
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxParams))
		if err != nil {
			return fmt.Errorf("reading the node's answer: %w", err)
		}
		return ReadRefusal(resp, body)
	}
	var done int64
	for buf := make([]byte, 256<<10); ; {
		n, err := resp.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil {
			return fmt.Errorf("writing what the node sends: %w", werr)
		}
		done += int64(n)
		seen(done, resp.ContentLength)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the node's answer: %w", err)
		}
	}
}

func (c *Client) question(ctx context.Context, name string, params url.Values) (*http.Request, error) {
	u := c.base + "/v1"
	if name != "" {
		u += "/" + name
	}
	if len(params) > 0 {
		u += "?" + params.Encode()
	}
	return http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
}

// Describe asks who one is and what can be asked.
func (c *Client) Describe(ctx context.Context) (Described, error) {
	var d Described
	return d, c.Query(ctx, "", nil, &d)
}

// Change asks for a change and reads its result into out, if there is one
// already. The Answer says whether it waits for a second person.
func (c *Client) Change(ctx context.Context, name string, params, out any) (Answer, error) {
	req, err := c.post(ctx, name, params)
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Idempotency-Key", uuid.NewString())
	a := Answer{Result: out}
	return a, c.do(req, &a)
}

func (c *Client) post(ctx context.Context, name string, params any) (*http.Request, error) {
	body, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/"+name, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return req, nil
}

func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx := req.Context(); ctx.Err() != nil {
			return nil, fmt.Errorf("asking the node: %w", ctx.Err())
		}
		var where *url.Error // its address is the one of every question
		if errors.As(err, &where) {
			err = where.Err
		}
		if errors.Is(err, fs.ErrPermission) {
			return nil, NoPermission(err)
		}
		return nil, fault.Wrap(fault.NoNode, err, "asking the node: %v", err).Arabic("سؤال العقدة: \u2066%v\u2069", err)
	}
	return resp, nil
}

func (c *Client) do(req *http.Request, out any) error {
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("reading the node's answer: %w", err)
	}
	if resp.StatusCode >= 400 {
		return ReadRefusal(resp, body)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("reading the node's answer: %w", err)
	}
	return nil
}

// NoPermission is said where the operating system does not let this account to
// the door: nobody's role was asked yet.
func NoPermission(err error) *Refusal {
	return &Refusal{
		Code:   fault.NotAllowed,
		Title:  union.Text{En: "This account has no permission to reach the node.", Ar: "لا يملك هذا الحساب صلاحية الوصول إلى العقدة."},
		Do:     union.Text{En: "Run the command as the account that runs the node, or join the group that its admin.group names.", Ar: "شغّل الأمر بالحساب الذي يشغّل العقدة، أو انضم إلى المجموعة المذكورة في admin.group."},
		Detail: err.Error(),
	}
}

// Refusal is the node's own word on why not. It reads like the fault that it
// was, also where this program's catalogue does not know the code.
type Refusal struct {
	Code       fault.Code
	Title, Do  union.Text
	Detail, ID string
	DetailAr   string // where the detail is a sentence
	Status     int
}

func (r *Refusal) Error() string {
	s := string(r.Code) + ": " + r.Title.En
	if r.Detail != "" {
		s += " (" + r.Detail + ")"
	}
	return s
}

// ReadRefusal reads problem details (RFC 9457) of a node.
func ReadRefusal(resp *http.Response, body []byte) error {
	var p struct {
		Title    string     `json:"title"`
		TitleAr  string     `json:"title_ar"`
		Detail   string     `json:"detail"`
		DetailAr string     `json:"detail_ar"`
		Instance string     `json:"instance"`
		Code     fault.Code `json:"code"`
		Action   string     `json:"action"`
		ActionAr string     `json:"action_ar"`
	}
	if json.Unmarshal(body, &p) != nil || p.Code == "" {
		return fmt.Errorf("the node answered %s", resp.Status)
	}
	return &Refusal{
		Code: p.Code, Title: union.Text{En: p.Title, Ar: p.TitleAr}, Do: union.Text{En: p.Action, Ar: p.ActionAr},
		Detail: p.Detail, DetailAr: p.DetailAr, ID: strings.TrimPrefix(p.Instance, "urn:uuid:"), Status: resp.StatusCode,
	}
}
