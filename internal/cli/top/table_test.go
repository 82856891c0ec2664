// SPDX-License-Identifier: Apache-2.0

package top

import (
	"math"
	"slices"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"pgregory.net/rapid"
)

func TestShares(t *testing.T) {
	for _, test := range []struct {
		total int
		needs []int
		want  []int
	}{
		{10, []int{2, 3}, []int{2, 3}},
		{10, []int{20, 20}, []int{5, 5}},
		{10, []int{1, 20, 20}, []int{1, 5, 4}},
		{3, []int{5, 5, 5, 5}, []int{1, 1, 1, 0}},
		{0, []int{5}, []int{0}},
		{-4, []int{5}, []int{0}},
		{5, []int{-1, 0, 9}, []int{0, 0, 5}},
		{5, nil, []int{}},
	} {
		if got := shares(test.total, test.needs); !slices.Equal(got, test.want) {
			t.Errorf("%d among %v: got %v, want %v", test.total, test.needs, got, test.want)
		}
	}
}

func TestSharesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.IntRange(-5, 300).Draw(t, "total")
		needs := rapid.SliceOfN(rapid.IntRange(-3, 60), 0, 12).Draw(t, "needs")
		got := shares(total, needs)
		sum, need := 0, 0
		for i, n := range got {
			if n < 0 || n > max(0, needs[i]) {
				t.Fatalf("got %v for needs %v: share %d is out of range", got, needs, i)
			}
			for j := range got {
				if n < needs[i] && got[j] > n+1 {
					t.Fatalf("got %v for needs %v: %d goes short while %d has more", got, needs, i, j)
				}
			}
			sum, need = sum+n, need+max(0, needs[i])
		}
		if want := max(0, min(total, need)); sum != want {
			t.Fatalf("gave away %d of %d, want %d", sum, total, want)
		}
	})
}

// From 60 cells on, every line of every pane fits, and nothing but bars is wider than it needs to be.
func TestLayoutFits(t *testing.T) {
	for name, f := range map[string]frame{
		"usual": compare(overviewAt(0), overviewAt(1)), "many": compare(manyAt(0), manyAt(1)),
		"odd": compare(nil, oddOverview()), "empty": {},
	} {
		for width := 60; width <= 200; width += 1 + len(f.accounts)/4 {
			for _, tab := range tables(f) {
				for choice := range len(tab.sorts) + 1 {
					cols := tab.layout(width)
					lines := []string{tab.headings(cols, choice, noPaint)}
					for _, r := range tab.rows {
						lines = append(lines, line(cols, r, noPaint))
					}
					for _, l := range lines {
						if w := lipgloss.Width(l); w > width {
							t.Fatalf("%s, %s at %d: %d cells: %q", name, tab.title, width, w, l)
						}
					}
					if choice > 0 && slices.ContainsFunc(cols, func(c placed) bool { return c.index == tab.sorts[choice-1] }) &&
						!strings.Contains(lines[0], "▾") {
						t.Fatalf("%s, %s at %d, sort %d: no mark in %q", name, tab.title, width, choice, lines[0])
					}
				}
			}
		}
	}
}

func TestLayoutDropsInOrder(t *testing.T) {
	tab := limiterTable(compare(overviewAt(0), overviewAt(1)))
	seen := len(tab.columns)
	for width := 200; width > 0; width-- {
		cols := tab.layout(width)
		if len(cols) > seen {
			t.Fatalf("at %d cells: %d columns, more than on a wider screen", width, len(cols))
		}
		seen = len(cols)
		lowest := math.MaxInt
		for _, c := range tab.columns {
			if !slices.ContainsFunc(cols, func(p placed) bool { return p.head == c.head }) {
				lowest = min(lowest, c.drop)
			}
		}
		for _, c := range cols {
			if c.drop > lowest {
				t.Fatalf("at %d cells: %s is shown though a column to be dropped later is not", width, c.head)
			}
		}
	}
	if want := 4; seen != want {
		t.Errorf("%d columns are left at the narrowest, want the %d that never drop", seen, want)
	}
}

func TestOrder(t *testing.T) {
	nan := math.NaN()
	tab := table{
		columns: []column{{head: "NAME"}, {head: "N", kind: numberColumn}},
		rows:    [][]cell{{{text: "b"}, {value: 1}}, {{text: "c"}, {value: nan}}, {{text: "a"}, {value: 3}}, {{text: "d"}, {value: 1}}},
		sorts:   []int{0, 1},
	}
	for _, step := range []struct {
		choice int
		want   string
	}{{1, "abcd"}, {2, "abdc"}, {0, "bcad"}, {99, "bcad"}, {-1, "bcad"}} {
		tab.order(step.choice)
		var got strings.Builder
		for _, r := range tab.rows {
			got.WriteString(r[0].text)
		}
		if got.String() != step.want {
			t.Errorf("choice %d: got %s, want %s", step.choice, got.String(), step.want)
		}
	}
}
