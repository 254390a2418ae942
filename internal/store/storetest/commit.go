package storetest

import (
	"strings"

	"modernc.org/sqlite"
)

// BeforeCommits has whoever commits into a SQLite database of the folder, if it
// is opened from now on, go through before first: what is to be committed is
// not durable until that returns.
func BeforeCommits(folder string, before func(path string)) {
	sqlite.RegisterConnectionHook(func(c sqlite.ExecQuerierContext, dsn string) error {
		path, _, _ := strings.Cut(strings.TrimPrefix(dsn, "file:"), "?")
		if h, ok := c.(sqlite.HookRegisterer); ok && strings.HasPrefix(strings.TrimPrefix(path, "//"), folder) {
			h.RegisterCommitHook(func() int32 {
				before(path)
				return 0
			})
		}
		return nil
	})
}
