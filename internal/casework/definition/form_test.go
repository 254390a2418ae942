package definition

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func TestRender(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	gulf := time.FixedZone("+03", 3*3600)
	facts := Values{
		"name": "علي\u2069\u202e\nx", "fee": map[string]any{"minor": int64(-1_234_567), "currency": "BHD"}, "due": time.Date(2026, 11, 30, 22, 5, 0, 0, time.UTC),
		"born": "1990-02-03", "sure": true, "kind": "small", "count": int64(1_000_000),
	}
	for _, c := range []struct{ lang, title, text string }{
		{"en", "Hello ⟨علي x⟩", "⟨BHD -1,234.567⟩ by ⟨1 December 2026, 01:05⟩, born ⟨3 February 1990⟩, ⟨yes⟩, ⟨small one⟩, —, ⟨1000000⟩"},
		{"ar", "مرحباً ⟨علي x⟩", "⟨\u200e-1,234.567 د.ب⟩ حتى ⟨1 ديسمبر 2026، 01:05⟩، الميلاد ⟨3 فبراير 1990⟩، ⟨نعم⟩، ⟨صغير⟩، —، ⟨1000000⟩"},
	} {
		title, text, err := p.Render("hello", facts, c.lang, gulf)
		show := strings.NewReplacer("\u2068", "⟨", "\u2069", "⟩")
		if err != nil || show.Replace(title) != c.title || show.Replace(text) != c.text {
			t.Errorf("%s: %q\n%q\nwanted %q\n%q (%v)", c.lang, show.Replace(title), show.Replace(text), c.title, c.text, err)
		}
	}
	facts["fee"] = map[string]any{"minor": int64(5), "currency": "AED"}
	if _, text, _ := p.Render("hello", facts, "en", time.UTC); !strings.Contains(text, "AED 0.05") || !strings.Contains(text, "30 November 2026, 22:05") {
		t.Error(text)
	}
	if _, _, err := p.Render("bye", facts, "en", time.UTC); err == nil {
		t.Error("a notice that there is not was rendered")
	}
}

// TestDocument holds the documents that portals get against what a step takes.
func TestDocument(t *testing.T) {
	p := compiled(t, changed(t, "fee.yaml"), feeHooks())
	h, err := p.Open("here", noon, noon)
	if err != nil {
		t.Fatal(err)
	}
	doc, ok := p.FormSchema("open")
	if !ok {
		t.Fatal("no schema")
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("urn:x", plain); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("urn:x")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		`{"name":"x"}`, `{}`, `{"name":""}`, `{"name":"123456789012345678901"}`, `{"name":"x","other":1}`, `{"name":"x","told":"x"}`,
		`{"name":"x","count":5}`, `{"name":"x","count":1001}`, `{"name":"x","count":"5"}`, `{"name":"x","sure":1}`, `{"name":"x","sure":false}`,
		`{"name":"x","due":"2026-11-22T00:00:00Z"}`, `{"name":"x","due":"soon"}`, `{"name":"x","born":"1990-02-30"}`, `{"name":"x","born":"1990-02-28"}`,
		`{"name":"x","fee":{"minor":1,"currency":"BHD"}}`, `{"name":"x","fee":{"minor":-1,"currency":"BHD"}}`, `{"name":"x","fee":{"minor":1,"currency":"BTC"}}`, `{"name":"x","fee":{"minor":1}}`,
		`{"name":"x","car":{"make":"a"}}`, `{"name":"x","car":{}}`, `{"name":"x","car":{"make":"a","b":1}}`, `{"name":"x","photos":[{"name":"a","size":1}]}`, `{"name":"x","photos":[1]}`, `{"name":"x","kind":"big"}`, `{"name":"x","kind":"huge"}`,
	} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(s))
		if err != nil {
			t.Fatal(err)
		}
		byDocument := schema.Validate(v) == nil
		fields, err := p.d.ReadValues([]byte(s))
		byStep := err == nil
		if byStep {
			_, err = p.Step(t.Context(), h, Input{Trigger: "open", At: noon, Actor: payer, Fields: fields})
			byStep = err == nil
		}
		if byDocument != byStep {
			t.Errorf("%s: the document says %t, the step %t (%v)", s, byDocument, byStep, err)
		}
	}
	kind := doc["properties"].(map[string]any)["kind"].(map[string]any)
	if kind["x-order"] != 9 || kind["title"] != "Kind" || kind["x-labels"] == nil {
		t.Errorf("kind is shown by %v", kind)
	}
	if m, ok := p.MessageSchema("ask"); !ok || len(m["properties"].(map[string]any)) != 2 || m["required"].([]string)[0] != "name" {
		t.Errorf("the message is %v", m)
	}
	if _, ok := p.FormSchema("ask"); ok {
		t.Error("a message is a form")
	}
	if _, ok := p.MessageSchema("open"); ok {
		t.Error("a form is a message")
	}
}
