// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/fielderr"
)

type animal struct {
	Name  string            `json:"name" check:"required"`
	Legs  int32             `json:"legs" default:"4" check:"gte=0,lte=1000"`
	Kind  string            `json:"kind" default:"dog" check:"oneof=dog cat"`
	Home  home              `json:"home" default:"{street: Main, number: 7}"`
	Young []animal          `json:"young,omitempty"`
	Notes map[string]string `json:"notes,omitempty"`
	Other map[string]any    `json:"other,omitempty"`
	Swims bool              `json:"swims,omitempty" union:"moves"`
	Flies *bool             `json:"flies,omitempty" union:"moves"`
	Age   *float64          `json:"age,omitempty" deprecated:"use born"`
}

type home struct {
	Street string `json:"street" check:"required"`
	Number uint32 `json:"number" default:"1"`
	place
}

type place struct {
	City string `json:"city" default:"Rome"`
}

func decode(t *testing.T, text string) (animal, fielderr.List) {
	t.Helper()
	d, err := Parse("f", []byte(text))
	if err != nil {
		return animal{}, err.(fielderr.List)
	}
	var a animal
	d.Decode("", d.Root, &a)
	refused, warnings := d.Problems()
	return a, append(refused, warnings...)
}

func TestDecode(t *testing.T) {
	yes := true
	for name, c := range map[string]struct {
		text string
		want animal
	}{
		"defaults":           {"name: a", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"null is absent":     {"{name: a, legs: null, kind: ~, home: , young: null}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"zero is kept":       {"{name: a, legs: 0, home: {number: 0, city: ''}}", animal{Name: "a", Legs: 0, Kind: "dog", Home: home{"Main", 0, place{""}}}},
		"default is merged":  {"{name: a, home: {street: Side}}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Side", 7, place{"Rome"}}}},
		"in list items":      {"{name: a, young: [{name: b, legs: 0}]}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Young: []animal{{Name: "b", Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}}}},
		"empty is absent":    {"{name: a, young: [], notes: {}}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"JSON with tabs":     {"{\n\t\"name\": \"a\",\n\t\"flies\": true\n}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Flies: &yes}},
		"quoted number":      {`{name: a, legs: "2"}`, animal{Name: "a", Legs: 2, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"hexadecimal":        {`{name: a, legs: 0x10}`, animal{Name: "a", Legs: 16, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"thousands":          {`{name: a, legs: 1_000}`, animal{Name: "a", Legs: 1000, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"merge key":          {"notes: &n {x: y}\nname: a\nother: {<<: *n, z: 1}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Notes: map[string]string{"x": "y"}, Other: map[string]any{"x": "y", "z": int64(1)}}},
		"merge list":         {"name: a\nnotes: &n {x: y}\nother: {x: mine, <<: [*n, {w: v, x: no}]}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Notes: map[string]string{"x": "y"}, Other: map[string]any{"x": "mine", "w": "v"}}},
		"byte order mark":    {"\uFEFFname: a", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"Windows lines":      {"name: a\r\nlegs: 2\r\n", animal{Name: "a", Legs: 2, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"directive":          {"%YAML 1.2\n---\nname: a\n", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"block text":         {"name: |\n  a\n  b\n", animal{Name: "a\nb\n", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}}},
		"anything at all":    {"name: a\nother: {n: null, b: true, f: 1.5, l: [1], nan: .nan}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Other: map[string]any{"n": nil, "b": true, "f": 1.5, "l": []any{int64(1)}, "nan": ".nan"}}},
		"keys that are null": {"name: a\nnotes: {~: x, 1: y, true: z}", animal{Name: "a", Legs: 4, Kind: "dog", Home: home{"Main", 7, place{"Rome"}}, Notes: map[string]string{"~": "x", "1": "y", "true": "z"}}},
	} {
		got, problems := decode(t, c.text)
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
			continue
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(home{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestPlaces checks positions where parsers get them wrong: after multi-byte text, on Windows lines, in
// aliases, in flow style over several lines.
func TestPlaces(t *testing.T) {
	for text, want := range map[string]string{
		"name: é\nlegs: éé":                                 `f:2:7: legs: got text "éé", want a whole number`,
		"{name: '日本', legs: x}":                             `f:1:20: legs: got text "x", want a whole number`,
		"name: a\r\nlegs: x\r\n":                            `f:2:7: legs: got text "x", want a whole number`,
		"# one\n\n# two\nname: a\nlegs: x # three":          `f:5:7: legs: got text "x", want a whole number`,
		"{\n  name: a,\n  young: [\n    {name: 5}\n  ]\n}":  `f:4:12: young[0].name: got number 5, want text; put it in quotes: "5"`,
		"name: a\nyoung:\n- name: b\n  legz: 1":             `f:4:3: young[0].legz: unknown field; did you mean "legs"?`,
		"name: a\nyoung:\n  -\n    legs: 1":                 `f:4:5: young[0].name: missing; want text`,
		"name: a\nhome:\n  number: 5\n  street: ~":          ``,
		"name: a\nother: &x [1]\nyoung: *x":                 "f:2:11: other: got a list, want a mapping\nf:2:12: young[0]: got number 1, want a mapping",
		"name: a\nnotes:\n  http.method: 5":                 `f:3:16: notes["http.method"]: got number 5, want text; put it in quotes: "5"`,
		"name: a\nnotes: {a: b, a: c}\nother: {x: 1, x: 2}": "f:2:15: notes.a: duplicate key, first on line 2; remove one of them\nf:3:15: other.x: duplicate key, first on line 3; remove one of them",
		"name: a\nswims: false\nflies: false":               `f:3:1: flies: got swims and flies, want only one of them`,
		"name: a\nage: 3":                                   `f:2:1: age: warning: deprecated; use born`,
		"name: a\nlegs: 1001":                               `f:2:7: legs: got 1001, want at most 1000`,
		"name: |\n  a\nkind: >\n  dag\n":                    `f:3:7: kind: got text "dag\n", want one of dog, cat`,
		"name: " + strings.Repeat("x", 100) + "\nlegs: {}":  `f:2:7: legs: got a mapping, want a whole number`,
		"name: a\nkind: " + strings.Repeat("y", 100):        `f:2:7: kind: got text "` + strings.Repeat("y", 60) + `…", want one of dog, cat`,
	} {
		if _, problems := decode(t, text); problems.Error() != want {
			t.Errorf("%q:\ngot  %s\nwant %s", text, problems, want)
		}
	}
}

func TestExcerpt(t *testing.T) {
	_, problems := decode(t, "name: a\nlegs: many\n")
	if want := "f:2:7: legs: got text \"many\", want a whole number\n    2 | legs: many\n      |       ^\n"; problems.Pretty() != want {
		t.Errorf("got\n%s\nwant\n%s", problems.Pretty(), want)
	}
}

func TestDefault(t *testing.T) {
	if got, want := Default[home](), (home{Number: 1, place: place{"Rome"}}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCheckName(t *testing.T) {
	for name, fine := range map[string]bool{
		"a": true, "per-user.v2": true, "0": true, strings.Repeat("a", 253): true,
		"": false, "-a": false, "a-": false, "a.": false, "A": false, "a_b": false, "a b": false, "é": false, strings.Repeat("a", 254): false,
	} {
		if problem := CheckName(name); (problem == nil) != fine {
			t.Errorf("%q: got %v", name, problem)
		}
	}
}

// TestMalformedTags: mistakes in tags are found by any test that touches the type.
func TestMalformedTags(t *testing.T) {
	for name, use := range map[string]func(){
		"no json tag": func() { Default[struct{ A string }]() },
		"unknown check": func() {
			Default[struct {
				A string `json:"a" check:"positive"`
			}]()
		},
		"bad default": func() {
			Default[struct {
				A string `json:"a" default:"["`
			}]()
		},
	} {
		func() {
			defer func() {
				if r := recover(); r == nil {
					t.Errorf("%s: no panic", name)
				} else if fmt.Sprint(r) == "" {
					t.Errorf("%s: empty panic", name)
				}
			}()
			use()
		}()
	}
}

// TestInside finds characters inside texts, however the document writes them.
func TestInside(t *testing.T) {
	for text, want := range map[string]string{ // each looks for the X
		`name: abXc`:              "1:9",
		`name: 'it''s X'`:         "1:14",
		`name: "a\"\u00fc\x41 X"`: "1:22",
		"name: |\n  ab\n   X\n":   "3:4",
		"name: |-\n\n    X\n":     "3:5",
		"a: b\nname:\n    aX":     "3:6",
		`name: "üüX"`:             "1:10",
		// Folded texts: the text as a whole.
		"name: >\n  ab\n  X\n": "1:7",
		"name: 'a\n  X'":       "1:7",
		"name: \"a\\nX\"":      "1:7",
	} {
		doc, err := Parse("", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var into struct {
			A    string `json:"a"`
			Name string `json:"name"`
		}
		doc.Decode("", doc.Root, &into)
		before, _, found := strings.Cut(into.Name, "X")
		if !found {
			t.Fatalf("%q has no X", into.Name)
		}
		line := strings.Count(before, "\n") + 1
		column := len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1
		doc.At("name").ReportInside(line, column, fielderr.Error{Message: "here"})
		refused, _ := doc.Problems()
		if got := fmt.Sprintf("%d:%d", refused[0].Line, refused[0].Column); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	doc, err := Parse("", []byte("name: ab"))
	if err != nil {
		t.Fatal(err)
	}
	var into struct {
		Name string `json:"name"`
	}
	doc.Decode("", doc.Root, &into)
	for _, at := range [][2]int{{0, 0}, {-1, 5}, {1, 900}, {7, 1}} {
		doc.At("name").ReportInside(at[0], at[1], fielderr.Error{Message: "beyond"})
	}
	for _, e := range doc.found {
		if e.Line != 1 || e.Column != 7 {
			t.Errorf("a place beyond the text is reported at %d:%d, want 1:7", e.Line, e.Column)
		}
	}
}
