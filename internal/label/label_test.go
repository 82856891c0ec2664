// SPDX-License-Identifier: Apache-2.0

package label

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

func bindAB(e Expr) Predicate {
	return e.Bind(func(key string) int { return int(key[0] - 'a') })
}

func TestMatch(t *testing.T) {
	present := func(a, b string) Values { return Values{{a, true}, {b, true}} }
	onlyA := func(a string) Values { return Values{{a, true}, {}} }
	tests := []struct {
		name string
		expr Expr
		in   Values
		want bool
	}{
		{"zero matches all", Expr{}, nil, true},
		{"empty all", Expr{Op: All}, nil, true},
		{"empty any", Expr{Op: Any}, nil, false},
		{"equal", Equal("a", "x"), onlyA("x"), true},
		{"equal, other value", Equal("a", "x"), onlyA("y"), false},
		{"equal, absent", Equal("b", "x"), onlyA("x"), false},
		{"equal empty, present", Equal("a", ""), onlyA(""), true},
		{"equal empty, absent", Equal("b", ""), onlyA("x"), false},
		{"slot beyond the end is absent", Equal("z", "x"), onlyA("x"), false},
		{"exists", Expr{Op: Exists, Key: "b"}, present("x", ""), true},
		{"does not exist", Negate(Expr{Op: Exists, Key: "b"}), onlyA("x"), true},
		{"not in matches a missing label", Negate(Expr{Op: In, Key: "b", Texts: []string{"x", "y"}}), onlyA("x"), true},
		{"in", Expr{Op: In, Key: "b", Texts: []string{"x", "y"}}, present("", "y"), true},
		{"regex is unanchored", Expr{Op: Match, Key: "a", Regex: regexp.MustCompile("b.d")}, onlyA("abcde"), true},
		{"regex, absent", Expr{Op: Match, Key: "b", Regex: regexp.MustCompile(".*")}, onlyA("x"), false},
		{"and", And(Equal("a", "x"), Equal("b", "y")), present("x", "y"), true},
		{"and fails", And(Equal("a", "x"), Equal("b", "y")), present("x", "z"), false},
		{"any", Expr{Op: Any, Of: []Expr{Equal("a", "q"), Equal("b", "y")}}, present("x", "y"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := bindAB(tt.expr)
			if got := p.Match(tt.in); got != tt.want {
				t.Errorf("Match(%v) = %v, want %v", tt.in, got, tt.want)
			}
		})
	}
}

func TestRequired(t *testing.T) {
	if k, v, ok := And(Expr{Op: Exists, Key: "b"}, Equal("a", "x")).Required(); !ok || k != "a" || v != "x" {
		t.Errorf("got %q %q %v, want a x true", k, v, ok)
	}
	for _, e := range []Expr{{}, Negate(Equal("a", "x")), {Op: Any, Of: []Expr{Equal("a", "x")}}} {
		if _, _, ok := e.Required(); ok {
			t.Errorf("%+v requires nothing", e)
		}
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	p := bindAB(And(Equal("a", "x"), Negate(Expr{Op: In, Key: "b", Texts: []string{"x", "y"}})))
	v := Values{{"x", true}, {"z", true}}
	if n := testing.AllocsPerRun(100, func() { p.Match(v) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// TestLongValue: however long a value is and however hard an expression, a match ends soon.
func TestLongValue(t *testing.T) {
	long := Values{{Text: strings.Repeat("a", 4<<20), Present: true}}
	slot := func(string) int { return 0 }
	hard := Expr{Op: Match, Key: "a", Regex: regexp.MustCompile("(.{1,1000}q)$")}.Bind(slot)
	start := time.Now()
	if hard.Match(long) {
		t.Error("it matches")
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	easy := Expr{Op: Match, Key: "a", Regex: regexp.MustCompile("b$")}.Bind(slot)
	if v := (Values{{Text: strings.Repeat("a", 100_000) + "b", Present: true}}); !easy.Match(v) {
		t.Error("an easy expression does not see the end of 100 KB")
	}
}

func TestRequire(t *testing.T) {
	for operator, want := range map[string][3]bool{ // for the value x, the value y, and no label
		"In": {true, false, false}, "NotIn": {false, true, true}, "Exists": {true, true, false}, "DoesNotExist": {false, false, true},
	} {
		e, err := Require("a", operator, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		p := bindAB(e)
		for i, v := range []Values{{{"x", true}}, {{"y", true}}, {{}}} {
			if got := p.Match(v); got != want[i] {
				t.Errorf("%s with %v: got %v, want %v", operator, v, got, want[i])
			}
		}
	}
	if _, err := Require("a", "Is", nil); err == nil {
		t.Error("an unknown operator is taken")
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\nb\x00": "a·b·", "\xff": "�", string(make([]byte, 81)): strings.Repeat("·", 80) + "…",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
