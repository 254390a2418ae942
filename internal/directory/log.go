package directory

import (
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/falaj/falaj/internal/fault"
	"github.com/falaj/falaj/internal/merkle"
	"github.com/falaj/falaj/internal/union"
)

// The names of the keys, in a key folder, that hold logs to their word.
const (
	LogKey     = "log"           // signs the heads of the state's log
	WitnessKey = "witness"       // cosigns the heads of the other states' logs
	QuantumKey = "witness-mldsa" // the same, with ML-DSA-44 beside it
)

// logFile stands beside state.json, so that nodes who do not know it go on.
const logFile = "log.json"

// Log is <STATE>/log.json: the state's log, and its witness of the others'.
type Log struct {
	Key     merkle.Key `json:"key,omitzero"` // its name is the log's origin
	Witness merkle.Key `json:"witness,omitzero"`
	Quantum merkle.Key `json:"witness_mldsa,omitzero"` // the witness's second key, of its name
	Address string     `json:"address,omitzero"`       // http(s) URL under which everybody reads the log; "" where there is none
}

// logName is the name of a log or a witness. It tells the state, so that no
// state can present another's as its own.
var logName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,126}/([A-Z]{2})/[a-z0-9]{1,32}$`)

// secretariatName is the name of the secretariat's witness: no state's.
var secretariatName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,126}/secretariat/[a-z0-9]{1,32}$`)

// SecretariatWitness is the secretariat's witness by the key of its folder.
func SecretariatWitness(host string, keys Keys) (merkle.Key, error) {
	s, err := keys.Signer(WitnessKey)
	if err != nil {
		return merkle.Key{}, fmt.Errorf("the key %s of the secretariat: %w", WitnessKey, err)
	}
	name := strings.ToLower(host) + "/secretariat/" + WitnessKey + "1"
	if !secretariatName.MatchString(name) {
		name = "falaj/secretariat/" + WitnessKey + "1"
	}
	return merkle.NewKey(name, merkle.Cosignature, s.Public())
}

// LogName makes the name of a state's log or witness. host is where it might
// be found, which nobody relies on.
func LogName(host string, state union.State, label string) string {
	name := strings.ToLower(host) + "/" + string(state) + "/" + label
	if !logName.MatchString(name) {
		return "falaj/" + string(state) + "/" + label
	}
	return name
}

// NewLog describes a state's log and witness by the keys of its folder.
func NewLog(state union.State, host, address string, keys Keys) (Log, error) {
	l := Log{Address: address}
	for name, x := range map[string]struct {
		kind merkle.Kind
		to   *merkle.Key
	}{LogKey: {merkle.LogSignature, &l.Key}, WitnessKey: {merkle.Cosignature, &l.Witness}} {
		s, err := keys.Signer(name)
		if err != nil {
			return Log{}, fmt.Errorf("the key %s of %s: %w", name, state, err)
		}
		if *x.to, err = merkle.NewKey(LogName(host, state, name+"1"), x.kind, s.Public()); err != nil {
			return Log{}, fmt.Errorf("the key %s of %s: %w", name, state, err)
		}
	}
	return l, nil
}

// Renewed is the log under the next name, log1 becoming log2: for a node whose
// database is older than what its log has published.
func (l Log) Renewed() (Log, error) {
	stem := strings.TrimRight(l.Key.Name(), "0123456789")
	n, err := strconv.ParseUint(l.Key.Name()[len(stem):], 10, 16)
	if l.Key == (merkle.Key{}) || err != nil && len(stem) < len(l.Key.Name()) {
		return l, fault.New(fault.NotFound, "the directory names no log, or none whose name is counted on")
	}
	l.Key, err = l.Key.Named(stem + strconv.FormatUint(n+1, 10))
	return l, err
}

// SetLog puts the log into the state's part.
func (e *Edition) SetLog(l Log) error {
	b, err := encode(l)
	if err != nil {
		return fmt.Errorf("log.json: %w", err)
	}
	if _, err := DecodeLog(e.State, b); err != nil {
		return err
	}
	if e.Files == nil {
		e.Files = map[string][]byte{}
	}
	e.Files[logFile] = b
	return nil
}

// DecodeLog reads a state's log.json strictly.
func DecodeLog(state union.State, b []byte) (Log, error) {
	var l Log
	if len(b) > maxLog {
		return l, fmt.Errorf("log.json: %d bytes; at most %d", len(b), maxLog)
	}
	if err := unmarshal(b, &l); err != nil {
		return Log{}, fmt.Errorf("log.json: %w", err)
	}
	for k, kind := range map[merkle.Key]merkle.Kind{l.Key: merkle.LogSignature, l.Witness: merkle.Cosignature, l.Quantum: merkle.Quantum} {
		if k == (merkle.Key{}) {
			continue
		}
		if m := logName.FindStringSubmatch(k.Name()); m == nil || m[1] != string(state) || k.Kind() != kind {
			return Log{}, fmt.Errorf("log.json: the key %q: wanted one named host/%s/label, of kind %d", clip(k.Name()), state, kind)
		}
	}
	if l.Quantum != (merkle.Key{}) && l.Quantum.Name() != l.Witness.Name() {
		return Log{}, fmt.Errorf("log.json: the key %q is beside no witness of its name", clip(l.Quantum.Name()))
	}
	if l.Address != "" {
		u, err := url.Parse(l.Address)
		if err != nil || len(l.Address) > maxText || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return Log{}, fmt.Errorf("log.json: %q is no http(s) address", clip(l.Address))
		}
	}
	return l, nil
}

// maxLog bounds log.json, in bytes.
const maxLog = 8 << 10
