package config

import "testing"

// The example that operators copy must load as it stands.
func TestDeployedExample(t *testing.T) {
	c, err := Load(Source{File: "../../../deploy/node.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Demonstration || c.R1.RemoteHTTP || c.Admin.SecondPerson != Required {
		t.Errorf("the example is a weak one: %+v", c)
	}
}
