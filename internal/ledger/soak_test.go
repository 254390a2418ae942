//go:build soak

package ledger_test

import (
	"testing"

	"github.com/falaj/falaj/internal/ledger"
	"github.com/falaj/falaj/internal/store/storetest"
)

func TestSoakLedger(t *testing.T) {
	long(books{t, storetest.Open(t, storetest.SQLite(t), ledger.Migrations())}, 1_000_000)
}
