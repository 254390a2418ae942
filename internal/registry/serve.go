package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/falaj/falaj/internal/union"
)

const (
	maxBody   = 64 << 10 // bytes
	maxPage   = 100
	maxValue  = 256 // bytes of a query value
	maxText   = 500 // bytes of a text that is handed in
	firstPage = 20
)

// problem is an answer that is no success, rendered by RFC 9457.
type problem struct {
	status int
	title  union.Text
	detail string
}

func (p *problem) Error() string { return p.title.En + " " + p.detail }

func bad(format string, args ...any) error {
	return &problem{http.StatusBadRequest, t("الطلب غير صحيح.", "The request is not valid."), fmt.Sprintf(format, args...)}
}

func notFound() error {
	return &problem{http.StatusNotFound, t("لا يوجد قيد بهذا الرقم.", "There is no such entry."), ""}
}

// answer runs a handler and renders what it could not do.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request, f func(*data, http.ResponseWriter, *http.Request) error) {
	d, err := r.build()
	if err == nil {
		err = f(d, w, req)
	}
	if err == nil {
		return
	}
	var p *problem
	if !errors.As(err, &p) {
		p = &problem{http.StatusInternalServerError, t("خطأ في المحاكي.", "The simulator failed."), ""}
	}
	p.write(w)
}

func (p *problem) write(w http.ResponseWriter) {
	b, _ := json.Marshal(struct { // strings and numbers only: cannot fail
		Simulator bool   `json:"simulator"`
		Type      string `json:"type"`
		Title     string `json:"title"`
		TitleAr   string `json:"title_ar"`
		Status    int    `json:"status"`
		Detail    string `json:"detail,omitempty"`
	}{true, "about:blank", p.title.En, p.title.Ar, p.status, p.detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(p.status)
	_, _ = w.Write(b)
}

// withProblems turns the mux's own plain texts (no such path, no such method)
// into problems as well.
func withProblems(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		refusal, pattern := mux.Handler(req)
		if pattern != "" {
			mux.ServeHTTP(w, req)
			return
		}
		probe := &headOnly{header: http.Header{}}
		refusal.ServeHTTP(probe, req)
		if allow := probe.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
			(&problem{http.StatusMethodNotAllowed, t("هذه الطريقة غير مسموح بها هنا.", "This method is not allowed here."), ""}).write(w)
			return
		}
		(&problem{http.StatusNotFound, t("لا يوجد شيء في هذا المسار.", "There is nothing at this path."), ""}).write(w)
	})
}

// headOnly keeps an answer's headers and drops the rest.
type headOnly struct{ header http.Header }

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) WriteHeader(int)             {}
func (h *headOnly) Write(b []byte) (int, error) { return len(b), nil }

func reply(w http.ResponseWriter, status int, b []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
	return nil
}

// send answers with v. The subject is the person whose data it is, by his
// number in this state, "" for nobody or several: the node in front takes the
// header off and keeps it to itself.
func send(w http.ResponseWriter, status int, subject string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if subject != "" {
		w.Header().Set("Falaj-Subject", subject)
	}
	return reply(w, status, b)
}

func (r *Registry) health(d *data, w http.ResponseWriter, req *http.Request) error {
	return send(w, http.StatusOK, "", struct {
		Simulator bool        `json:"simulator"`
		Status    string      `json:"status"`
		State     union.State `json:"state"`
		Persons   int         `json:"persons"`
		Vehicles  int         `json:"vehicles"`
		Companies int         `json:"companies"`
	}{true, "ok", r.state, len(d.persons), len(d.vehicles), len(d.companies)})
}

// query is a request's query, read strictly.
type query struct {
	values        url.Values
	offset, limit int
}

func readQuery(req *http.Request, allowed ...string) (query, error) {
	values, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return query{}, bad("the query is malformed")
	}
	q := query{values: values, limit: firstPage}
	for name, v := range values {
		switch {
		case !slices.Contains(allowed, name) && name != "offset" && name != "limit":
			return query{}, bad("the query takes offset, limit, %s", strings.Join(allowed, ", "))
		case len(v) != 1:
			return query{}, bad("%s stands %d times", name, len(v))
		case len(v[0]) > maxValue || !printable(v[0]):
			return query{}, bad("%s is too long or not printable UTF-8", name)
		}
	}
	if q.offset, err = q.number("offset", 0, 1<<30); err != nil {
		return query{}, err
	}
	q.limit, err = q.number("limit", firstPage, maxPage)
	return q, err
}

func (q query) number(name string, usual, most int) (int, error) {
	if !q.values.Has(name) {
		return usual, nil
	}
	n, err := strconv.Atoi(union.FoldDigits(q.values.Get(name)))
	if err != nil || n < 0 || n > most {
		return 0, bad("%s is a number from 0 to %d", name, most)
	}
	return n, nil
}

// page is one page of what was found. If it is a single person's, subject
// names him.
type page[T any] struct {
	Simulator bool `json:"simulator"`
	Total     int  `json:"total"`
	Offset    int  `json:"offset"`
	Items     []T  `json:"items"`
}

func (q query) page(found []int16) []int16 {
	start := min(q.offset, len(found))
	return found[start:min(start+q.limit, len(found))]
}

func newPage[T any](q query, found []int16, show func(int16) T) page[T] {
	p := page[T]{Simulator: true, Total: len(found), Offset: q.offset, Items: []T{}}
	for _, i := range q.page(found) {
		p.Items = append(p.Items, show(i))
	}
	return p
}

// readBody decodes a small JSON body strictly: known fields, one value.
func readBody(w http.ResponseWriter, req *http.Request, v any) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &problem{http.StatusRequestEntityTooLarge, t("محتوى الطلب كبير جداً.", "The body is too large."), ""}
	case err != nil:
		return nil, bad("the body could not be read")
	case !utf8.Valid(b):
		return nil, bad("the body is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return nil, bad("the body is not the JSON that the description asks for")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, bad("something follows the JSON in the body")
	}
	return b, nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// bilingual tells whether a text is there in both languages and fit to show.
func bilingual(x union.Text) bool {
	return x.Complete() && len(x.En) <= maxText && len(x.Ar) <= maxText && printable(x.En) && printable(x.Ar)
}
