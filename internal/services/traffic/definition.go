package traffic

import _ "embed"

// Definition is the service's definition.
//
//go:embed traffic.yaml
var Definition []byte

// Scenarios are the tests of the definition, for `falaj service test`.
//
//go:embed traffic.test.yaml
var Scenarios []byte
