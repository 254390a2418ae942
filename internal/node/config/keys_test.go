package config

import (
	"reflect"
	"slices"
	"testing"
)

// TestEveryKeyIsListed: what the file can say, falaj config keys names.
func TestEveryKeyIsListed(t *testing.T) {
	listed := append(Keys(), Lists()...)
	var visit func(reflect.Type, string)
	visit = func(typ reflect.Type, path string) {
		for f := range typ.Fields() {
			key := path + f.Tag.Get("yaml")
			if f.Type.Kind() == reflect.Struct {
				visit(f.Type, key+".")
			} else if !slices.Contains(listed, key) {
				t.Errorf("%s is not listed", key)
			}
		}
	}
	visit(reflect.TypeFor[Config](), "")
}
