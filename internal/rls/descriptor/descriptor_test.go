// SPDX-License-Identifier: Apache-2.0

package descriptor

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

type entry struct{ key, value string }

func text(entries []entry) string {
	var b []byte
	for i, e := range entries {
		b = AppendEntry(b, i == 0, e.key, e.value)
	}
	return string(b)
}

func TestText(t *testing.T) {
	tests := []struct {
		entries []entry
		want    string
	}{
		{nil, ""},
		{[]entry{{"path", "/login"}, {"remote_address", "10.0.0.1"}}, "path=/login,remote_address=10.0.0.1"},
		{[]entry{{"q", `a=b,c\d`}, {"empty", ""}}, `q=a\=b\,c\\d,empty=`},
	}
	for _, tt := range tests {
		if got := text(tt.entries); got != tt.want {
			t.Errorf("%v: got %s, want %s", tt.entries, got, tt.want)
		}
	}
}

// Two descriptors have the same text only if they are the same.
func TestTextTellsDescriptorsApart(t *testing.T) {
	part := rapid.StringOfN(rapid.SampledFrom([]rune{'a', 'b', ',', '=', '\\'}), 0, 4, -1)
	list := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) entry {
		return entry{part.Draw(t, "key"), part.Draw(t, "value")}
	}), 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		seen := map[string][]entry{}
		for _, entries := range rapid.SliceOfN(list, 2, 30).Draw(t, "descriptors") {
			other, ok := seen[text(entries)]
			if ok && len(other) != len(entries) {
				t.Fatalf("%q and %q are both %s", entries, other, text(entries))
			}
			for i := range other {
				if other[i] != entries[i] {
					t.Fatalf("%q and %q are both %s", entries, other, text(entries))
				}
			}
			seen[text(entries)] = entries
		}
	})
}

func TestLabelValue(t *testing.T) {
	for place, want := range map[int]string{1: "ratelimit.value.1", MaxEntries: "ratelimit.value.64", 100: "ratelimit.value.100"} {
		if got := LabelValue(place); got != want || !strings.HasPrefix(got, ReservedPrefix) {
			t.Errorf("LabelValue(%d) = %s, want %s", place, got, want)
		}
	}
}
