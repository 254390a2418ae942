package definition

import (
	"reflect"
	"testing"
	"time"
)

func TestValues(t *testing.T) {
	d := &Definition{Facts: map[string]Fact{
		"plate": {Type: Text}, "speed": {Type: Whole}, "paid": {Type: Truth}, "at": {Type: Instant}, "born": {Type: Date},
		"fine": {Type: Money}, "seen": {Type: Object}, "photos": {Type: List},
	}}
	const all = `{"at":"2026-11-22T10:00:00.5+03:00","born":"1990-02-28","fine":{"minor":600000,"currency":"AED"},"paid":true,` +
		`"photos":[{"n":1}],"plate":"١٢٣","seen":{"colour":"أبيض","lanes":[1,2]},"speed":-9223372036854775808}`
	v, err := d.ReadValues([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	if v["speed"] != int64(-9223372036854775808) || v["at"] != time.Date(2026, 11, 22, 7, 0, 0, 500e6, time.UTC) {
		t.Errorf("read %v", v)
	}
	b, err := v.AppendJSON(nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := d.ReadValues(b)
	if err != nil || !reflect.DeepEqual(v, again) {
		t.Errorf("%s\nread %v again as %v (%v)", b, v, again, err)
	}
	for _, bad := range []string{
		``, `[]`, `null`, `{"plate":1}`, `{"plate":null}`, `{"plate":"a","plate":"b"}`, `{"owner":"x"}`, `{"speed":1.5}`, `{"speed":1e3}`,
		`{"speed":9223372036854775808}`, `{"at":"2026-11-22"}`, `{"at":"1026-11-22T00:00:00Z"}`, `{"born":"1990-02-29"}`, `{"fine":{"minor":1.0,"currency":"AED"}}`,
		`{"fine":{"minor":1}}`, `{"fine":{"minor":1,"currency":"AED","x":1}}`, `{"seen":[]}`, `{"seen":{"a":null}}`, `{"seen":{"a":1,"a":2}}`,
		`{"photos":[[[[[[[[[1]]]]]]]]]}`, `{"paid":"true"}`,
	} {
		if v, err := d.ReadValues([]byte(bad)); err == nil {
			t.Errorf("%s: read as %v", bad, v)
		}
	}
}

func FuzzReadValues(f *testing.F) {
	f.Add([]byte(`{"t":"x","n":1,"i":"2026-11-22T10:00:00Z","m":{"minor":1,"currency":"BHD"},"o":{"a":[1,true]}}`))
	d := &Definition{Facts: map[string]Fact{"t": {Type: Text}, "n": {Type: Whole}, "i": {Type: Instant}, "m": {Type: Money}, "o": {Type: Object}, "l": {Type: List}, "d": {Type: Date}, "b": {Type: Truth}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := d.ReadValues(b)
		if err != nil {
			return
		}
		out, err := v.AppendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := d.ReadValues(out)
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%q became %q (%v)", b, out, err)
		}
	})
}
