// SPDX-License-Identifier: Apache-2.0

package wfq

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkPushPop measures a push and a pop with 100,000 flows queued.
func BenchmarkPushPop(b *testing.B) {
	const queued = 100_000
	shapes := []struct {
		classes, keys int // keys: per class
	}{{5, 1}, {5, queued / 5}, {queued, 1}}
	for _, s := range shapes {
		b.Run(fmt.Sprintf("classes=%d/keys=%d", s.classes, s.keys), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			type flow struct {
				class ClassKey
				key   string
				cost  float64
			}
			flows := make([]flow, 1<<18)
			for i := range flows {
				c := rng.IntN(s.classes)
				flows[i] = flow{
					ClassKey{fmt.Sprintf("workload-%d", c), float64(1 + c%7)},
					fmt.Sprintf("user-%d", rng.IntN(s.keys)),
					1 + 9*rng.Float64(),
				}
			}
			var q Queue[*int]
			var x int
			for i := range queued {
				f := &flows[i]
				q.Push(f.class, f.key, f.cost, &x)
			}
			b.ReportAllocs()
			i := queued
			for b.Loop() {
				f := &flows[i&(len(flows)-1)]
				i++
				q.Push(f.class, f.key, f.cost, &x)
				q.Pop()
			}
		})
	}
}

// BenchmarkRemove measures a push and the removal of a flow in the middle of 100,000.
func BenchmarkRemove(b *testing.B) {
	const queued = 100_000
	var q Queue[int]
	handles := make([]Handle, queued)
	class := ClassKey{"w", 1}
	for i := range handles {
		handles[i] = q.Push(class, fmt.Sprint(i%1000), 1, i)
	}
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		at := i * 7919 % queued
		q.Remove(handles[at])
		handles[at] = q.Push(class, keys[i%1000], 1, i)
		i++
	}
}
