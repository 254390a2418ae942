// Package residence is the joint service "certificate of residence": a
// definition and its scenarios, without a line of code beside.
package residence

import _ "embed"

// Definition is the service's definition.
//
//go:embed residence.yaml
var Definition []byte

// Scenarios are the tests of the definition, for `falaj service test`.
//
//go:embed residence.test.yaml
var Scenarios []byte
