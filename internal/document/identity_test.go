// SPDX-License-Identifier: Apache-2.0

package document

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// refs makes limiters from kind+content words; their ids are their places. "r" in "ra" is the kind.
func refs(words ...string) []LimiterRef {
	var out []LimiterRef
	for i, w := range words {
		out = append(out, LimiterRef{Component: fmt.Sprintf("root.%d", i), Kind: w[:1], Key: "user", ContentHash: w[1:]})
	}
	return out
}

func version(v int64, limiters []LimiterRef) Version {
	return Version{Name: "p", Version: v, Limiters: limiters}
}

func TestIdentitiesByExample(t *testing.T) {
	for _, test := range []struct {
		name        string
		before, now []string
		want        []int // for each limiter now: the place before of the one it continues; -1: fresh
	}{
		{"unchanged", []string{"ra", "rb"}, []string{"ra", "rb"}, []int{0, 1}},
		{"insert in front", []string{"ra", "rb"}, []string{"rx", "ra", "rb"}, []int{-1, 0, 1}},
		{"remove the first", []string{"ra", "rb"}, []string{"rb"}, []int{1}},
		{"swap", []string{"ra", "rb"}, []string{"rb", "ra"}, []int{1, 0}},
		{"edit", []string{"ra", "rb"}, []string{"ra", "rB"}, []int{0, 1}},
		{"edit and insert behind", []string{"ra"}, []string{"rA", "rx"}, []int{0, -1}},
		{"insert in front of an edit", []string{"ra", "rb"}, []string{"rx", "ra", "rB"}, []int{-1, 0, -1}},
		{"other kind", []string{"ra"}, []string{"ca"}, []int{-1}},
		{"twins", []string{"ra", "ra"}, []string{"rx", "ra", "ra"}, []int{-1, 0, 1}},
		{"one twin less", []string{"ra", "ra"}, []string{"ra"}, []int{0}},
		{"one twin more", []string{"ra"}, []string{"ra", "ra"}, []int{0, -1}},
		{"content unknown", []string{"r", "r"}, []string{"r", "r", "r"}, []int{0, 1, -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := assignIdentities(version(1, refs(test.before...)), nil, nil)
			now := assignIdentities(version(2, refs(test.now...)), before, nil)
			var got []int
			for _, l := range now {
				got = append(got, slices.IndexFunc(before, func(b LimiterRef) bool { return b.UID == l.UID }))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("continues (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIdentitiesOfAnotherLabel(t *testing.T) {
	before := assignIdentities(version(1, refs("ra")), nil, nil)
	changed := refs("ra")
	changed[0].Key = "tenant"
	if now := assignIdentities(version(2, changed), before, nil); now[0].UID == before[0].UID {
		t.Error("a limiter by another label got the accounts of the old one")
	}
}

func drawRefs(t *rapid.T, label string) []LimiterRef {
	words := rapid.SliceOfN(rapid.StringMatching(`[rc][a-d]?`), 0, 12).Draw(t, label)
	return refs(words...)
}

func TestIdentitiesAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		previous := drawRefs(t, "previous")
		for i := range previous { // as a damaged history could have them
			previous[i].UID = rapid.Uint64Range(0, 6).Draw(t, "uid")
		}
		used := map[uint64]bool{}
		for _, uid := range rapid.SliceOf(rapid.Uint64Range(0, 6)).Draw(t, "used") {
			used[uid] = true
		}
		v := version(rapid.Int64Range(1, 9).Draw(t, "version"), drawRefs(t, "next"))
		// What would be drawn first is in use, so that it must be drawn again.
		for _, l := range v.Limiters {
			used[freshUID(v.Name, v.Version, l.Component, 0)] = true
		}
		got := assignIdentities(v, previous, used)
		seen := map[uint64]bool{0: true}
		for i, l := range got {
			if seen[l.UID] || used[l.UID] {
				t.Fatalf("limiter %d has UID %d, which is 0 or in use", i, l.UID)
			}
			seen[l.UID] = true
			l.UID = 0
			if l != v.Limiters[i] {
				t.Fatalf("limiter %d was changed: got %+v, want %+v", i, l, v.Limiters[i])
			}
		}
		if again := assignIdentities(v, previous, used); !slices.Equal(again, got) {
			t.Fatal("the same question had another answer")
		}
	})
}

// TestUnchangedLimitersKeepTheirAccounts inserts, removes and reorders whatever it likes.
func TestUnchangedLimitersKeepTheirAccounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.SliceOfNDistinct(rapid.StringMatching(`r[a-z]{2}`), 1, 15, rapid.ID)
		before := assignIdentities(version(1, refs(content.Draw(t, "before")...)), nil, nil)
		now := assignIdentities(version(2, refs(content.Draw(t, "now")...)), before, nil)
		owner := map[string]uint64{}
		for _, l := range before {
			owner[l.ContentHash] = l.UID
		}
		for _, l := range now {
			if uid, was := owner[l.ContentHash]; was && uid != l.UID {
				t.Fatalf("%s had UID %d, got %d", l.ContentHash, uid, l.UID)
			}
		}
	})
}

// TestEditedLimiterKeepsItsCounts changes any of the limiters in place.
func TestEditedLimiterKeepsItsCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := assignIdentities(version(1, drawRefs(t, "before")), nil, nil)
		edited := slices.Clone(before)
		for i := range edited {
			if rapid.Bool().Draw(t, "edit") {
				edited[i].ContentHash = fmt.Sprintf("edited %d", i)
			}
		}
		now := assignIdentities(version(2, edited), before, nil)
		for i := range edited {
			// A limiter that lost its twin may take the twin's accounts; an edited one never does worse
			// than its own.
			if edited[i].ContentHash == before[i].ContentHash {
				continue
			}
			if slices.ContainsFunc(now, func(l LimiterRef) bool { return l.UID == before[i].UID && l.Component != now[i].Component }) {
				continue // a twin took them first
			}
			if now[i].UID != before[i].UID {
				t.Fatalf("limiter %d had UID %d, got %d", i, before[i].UID, now[i].UID)
			}
		}
	})
}
