package casework

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/union"
)

// Owns tells that this state's case system is this engine: exchange.Inside.
func (e *Engine) Owns(id union.SubsystemID) bool {
	b, err := e.deps.Book()
	if err != nil {
		return false
	}
	own, ok := b.System(e.cfg.State)
	return ok && own == id
}

// Serve answers the other states' case systems: exchange.Inside.
func (e *Engine) Serve(ctx context.Context, c exchange.Call) (exchange.Answer, error) {
	if c.Service.Service != Service || c.Method != http.MethodPost {
		return exchange.Answer{}, fault.New(fault.UnknownService, "%s %s", c.Method, c.Service)
	}
	switch c.Path {
	case "/messages":
		h, err := e.Hear(ctx, c.Client, c.Body)
		status := http.StatusOK
		if h.Refusal != nil {
			status = http.StatusConflict
		}
		return answer(status, h, err)
	case "/standings":
		var ask standings
		if err := json.Unmarshal(c.Body, &ask, json.RejectUnknownMembers(true)); err != nil || ask.Format != format || len(ask.After) > 64 || ask.Cases != nil {
			return exchange.Answer{}, fault.New(fault.CaseInvalid, "%s", format)
		}
		if err := e.fromSystem(c.Client); err != nil {
			return exchange.Answer{}, err
		}
		page := standings{Format: format, After: ask.After}
		var err error
		page.Cases, page.More, err = e.Standings(ctx, c.Client.State, ask.After)
		return answer(http.StatusOK, page, err)
	}
	return exchange.Answer{}, fault.New(fault.NotFound, "/messages, /standings")
}

func answer(status int, v any, err error) (exchange.Answer, error) {
	if err != nil {
		return exchange.Answer{}, err
	}
	b, err := json.Marshal(v)
	return exchange.Answer{Status: status, ContentType: "application/json", Body: b}, err
}

// fromSystem holds that a caller is another state's case system.
func (e *Engine) fromSystem(id union.SubsystemID) error {
	b, err := e.deps.Book()
	if err != nil {
		return err
	}
	if system, ok := b.System(id.State); !ok || system != id || id.State == e.cfg.State {
		return fault.New(fault.CaseActor, "%s", id)
	}
	return nil
}
