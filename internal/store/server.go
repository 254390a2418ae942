package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/falaj/falaj/internal/fault"
)

const (
	// connectTime is how long one server of the DSN may take to let us in.
	connectTime = 5 * time.Second
	// keepAlive finds out in three of these that the server's machine is gone.
	keepAlive = 5 * time.Second
)

// server knows to which server the connections lead. Behind one address there
// may be another one at any moment: a standby that was promoted, an older copy.
type server struct {
	mu      sync.Mutex
	started string // when the one began to run to which they lead now
	number  uint64 // how many there have been
}

// greet is what each new connection says first. A process that stops in the
// middle of a transaction, or whose machine is gone, must not hold its locks for
// hours, where the server's own settings would let it; and a commit shows that
// whatever the connection can read is as durable as the server's settings want
// it: after a crash a primary also shows what its standby never had.
const greet = `
SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES
	('idle_in_transaction_session_timeout', '10s'), ('client_connection_check_interval', '5s'),
	('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '2'), ('tcp_user_timeout', '15s')
) AS ours (setting_name, value) ON name = setting_name WHERE source = 'default';
SELECT extract(epoch FROM pg_postmaster_start_time())::text, current_setting('fsync'), current_setting('full_page_writes'),
	current_setting('synchronous_commit'), current_setting('synchronous_standby_names');
SELECT pg_logical_emit_message(true, 'falaj', '')`

// meet admits a connection to a server that can be written to and makes durable
// what it acknowledges. One that leads to another server than the connections
// before makes those useless.
func (s *server) meet(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, greet).ReadAll()
	switch {
	case err != nil:
		return err
	case len(results) != 3 || len(results[1].Rows) != 1:
		return errors.New("the server does not say what it is")
	}
	row := results[1].Rows[0]
	for i, name := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		switch value := string(row[i+1]); {
		case value == "off":
			return fault.New(fault.ConfigInvalid, "PostgreSQL runs with %s = off; evidence needs it on", name)
		case value == "local" && len(row[4]) > 0:
			return fault.New(fault.ConfigInvalid, "PostgreSQL has a synchronous standby, and does not wait for it: synchronous_commit = local")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if started := string(row[0]); started != s.started {
		s.started, s.number = started, s.number+1
	}
	conn.CustomData()["server"] = s.number
	return nil
}

// still has a connection dropped that leads elsewhere than the newest.
func (s *server) still(_ context.Context, conn *pgx.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if conn.PgConn().CustomData()["server"] != s.number {
		return driver.ErrBadConn
	}
	return nil
}

func (s *server) now() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.number
}

// connector makes connections, and those alone: pgx would also connect to ask
// the server to cancel what a caller has given up. A commit that waits for its
// standby would thereby end as one that only this server has, for everybody to
// read. What else is given up the server ends by itself, since it looks whether
// anybody is there (client_connection_check_interval).
type connector struct{ driver.Connector }

type connecting struct{}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	return c.Connector.Connect(context.WithValue(ctx, connecting{}, true))
}

var errNoCancel = errors.New("store: nothing is cancelled at the server")

// connector prepares the connections of a configuration.
func (s *server) connector(c *pgx.ConnConfig) driver.Connector {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTime
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAlive, Interval: keepAlive, Count: 2}}
	c.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if ctx.Value(connecting{}) == nil {
			return nil, errNoCancel
		}
		return dialer.DialContext(ctx, network, addr)
	}
	fit := c.ValidateConnect
	if fit == nil {
		fit = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	c.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if err := fit(ctx, conn); err != nil {
			return err
		}
		return s.meet(ctx, conn)
	}
	return connector{stdlib.GetConnector(*c, stdlib.OptionResetSession(s.still))}
}
