// SPDX-License-Identifier: Apache-2.0

package document

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestRandomChanges makes random changes with random failures and restarts, and compares with what the
// simplest possible catalog would hold.
func TestRandomChanges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBench(t)
		want := map[string]string{} // documents in force
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		content := rapid.SliceOfN(rapid.SampledFrom([]string{"limiter rate user x", "limiter rate user y", "limiter slots - z"}), 0, 4)
		fails := rapid.SampledFrom([]string{"", "", "", "store", "late", "check", "publish"})
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			n, text := name.Draw(rt, "name"), ""
			failure := fails.Draw(rt, "failure")
			harm(b, failure)
			var err error
			switch action := rapid.SampledFrom([]string{"apply", "apply", "delete", "rollback", "restart"}).Draw(rt, "action"); action {
			case "apply":
				text = strings.Join(append([]string{"name " + n}, content.Draw(rt, "content")...), "\n")
				_, err = b.Apply(t.Context(), apply(text))
			case "delete":
				_, err = b.Delete(t.Context(), DeleteRequest{Name: n, Origin: OriginAPI})
			case "rollback":
				var old Version
				if old, err = b.rollbackTarget(t.Context(), RollbackRequest{Name: n}); err == nil {
					text = old.Document
					_, err = b.Rollback(t.Context(), RollbackRequest{Name: n})
				}
			case "restart":
				b.restart(t)
				err = errors.New("no change")
			}
			late := failure == "late" && errors.Is(err, ErrStore)
			if err == nil || errors.Is(err, ErrNotPublished) || late {
				want[n] = text
			}
			if late || errors.Is(err, ErrNotPublished) { // in force with the next change or start
				b.restart(t)
			}
			harm(b, "")
			checkModel(t, rt, b, want)
		}
	})
}

func harm(b *bench, failure string) {
	b.store.fail, b.store.failLate = nil, false
	b.publisher.failCheck, b.publisher.failNext = nil, nil
	boom := errors.New("boom")
	switch failure {
	case "store":
		b.store.fail = boom
	case "late":
		b.store.fail, b.store.failLate = boom, true
	case "check":
		b.publisher.failCheck = boom
	case "publish":
		b.publisher.failNext = boom
	}
}

// checkModel expects that what runs, what is stored and what the model holds is the same, that versions
// have no gaps and that no two limiters share accounts.
func checkModel(t *testing.T, rt *rapid.T, b *bench, want map[string]string) {
	maps.DeleteFunc(want, func(_, text string) bool { return text == "" })
	stored, seen := map[string]string{}, map[uint64]bool{0: true}
	var running []string
	for v, err := range b.store.Active(t.Context()) {
		if err != nil {
			rt.Fatal(err)
		}
		stored[v.Name] = v.Document
		running = append(running, fmt.Sprintf("%s@%d", v.Name, v.Version))
		limiters := b.publisher.limiters(v.Name)
		if !slices.Equal(limiters, v.Limiters) {
			rt.Fatalf("%s: %v run, %v are stored", v.Name, limiters, v.Limiters)
		}
		for _, l := range limiters {
			if seen[l.UID] {
				rt.Fatalf("%s: UID %d is 0 or used twice", v.Name, l.UID)
			}
			seen[l.UID] = true
		}
	}
	if !maps.Equal(stored, want) {
		rt.Fatalf("stored: got %q, want %q", stored, want)
	}
	if got := b.publisher.running(); got != strings.Join(running, " ") {
		rt.Fatalf("running: got %s, want %s", got, running)
	}
	for name, list := range b.store.versions {
		for i, v := range list {
			if v.Version != int64(i+1) {
				rt.Fatalf("%s: version %d is at place %d", name, v.Version, i+1)
			}
		}
	}
}
