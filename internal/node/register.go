package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/falaj/falaj/internal/exchange"
	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/node/admin"
)

// register brings the clients and services of the configuration file to the
// exchange. What the file names, it overrides; what it does not name, stays as
// the admin door left it.
func (n *Node) register(ctx context.Context) error {
	local := n.exchange.Local()
	var changed []string
	for _, c := range n.cfg.Clients {
		want := exchange.Client{ID: c.ID, Mode: exchange.Mode(c.Mode)}
		for _, d := range c.Certificates {
			want.Certificates = append(want.Certificates, hex.EncodeToString(d[:]))
		}
		want.Push = c.Push
		if have, ok := local.Client(c.ID); ok && have.Mode == want.Mode && have.Push == want.Push && slices.Equal(have.Certificates, want.Certificates) {
			continue
		}
		if err := local.PutClient(ctx, want); err != nil {
			return fault.Wrap(fault.ConfigInvalid, err, "clients: %s: %s", c.ID, fault.From(err).Detail)
		}
		changed = append(changed, c.ID.String())
	}
	for _, s := range n.cfg.Services {
		want := exchange.Backend{Service: s.ID, Address: s.Address, KeyHeader: s.KeyHeader}
		if s.Authorities != "" {
			pem, err := os.ReadFile(s.Authorities)
			if err != nil {
				return fault.Wrap(fault.ConfigInvalid, err, "services: %s: authorities", s.ID)
			}
			want.RootsPEM = string(pem)
		}
		if have, ok := local.Backend(s.ID); ok && have == want {
			continue
		}
		if err := local.PutBackend(ctx, want); err != nil {
			return fault.Wrap(fault.ConfigInvalid, err, "services: %s: %s", s.ID, fault.From(err).Detail)
		}
		changed = append(changed, s.ID.String())
	}
	if len(changed) == 0 {
		return nil
	}
	entry, err := json.Marshal(struct {
		Event   string   `json:"event"`
		Systems []string `json:"systems"`
	}{admin.EventConfigApplied, changed})
	if err != nil {
		return fmt.Errorf("writing down the registration: %w", err)
	}
	if len(entry) > 60<<10 {
		entry = []byte(fmt.Sprintf(`{"event":%q,"count":%d}`, admin.EventConfigApplied, len(changed)))
	}
	return n.record(ctx, entry)
}
