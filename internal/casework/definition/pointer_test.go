package definition

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestFind(t *testing.T) {
	const doc = ` {"a":{"b/c":1,"m~n":2,"":3,"~1":4},"list":["x",{"y":null}],"0":"zero","01":"member"}`
	for pointer, want := range map[string]string{
		"": doc, "/a/b~1c": "1", "/a/m~0n": "2", "/a/": "3", "/a/~01": "4", "/list/0": `"x"`, "/0": `"zero"`, "/01": `"member"`,
		"/list/1/y": "", "/list/2": "", "/list/1abc": "", "/list/01": "", "/list/-": "", "/list/-1": "", "/list/+1": "", "/list/ 1": "", "/list/99999999999999999999": "",
		"/a/x": "", "/a/b~1c/d": "", "/a/m~2n": "", "/a/m~": "", "a": "",
	} {
		got, ok := Find(jsontext.Value(doc), pointer)
		if ok != (want != "") || ok && string(got) != want {
			t.Errorf("%q: %s %t, not %s", pointer, got, ok, want)
		}
	}
	for _, broken := range []string{"", "{", `{"a":1,"a":2}`, "null"} {
		if got, ok := Find(jsontext.Value(broken), "/a"); ok {
			t.Errorf("%s: %s", broken, got)
		}
	}
}
