// SPDX-License-Identifier: Apache-2.0

package wfq

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var paid = ClassKey{"paid", 5}

// play reads a script of words and returns what was popped: "name:class/key=cost" pushes, "-name"
// removes, "pop" pops one, "drain" pops all. Classes are written workload@priority.
func play(t *testing.T, script string) string {
	t.Helper()
	var q Queue[string]
	handles := map[string]Handle{}
	var out []string
	for _, word := range strings.Fields(script) {
		switch {
		case word == "pop" || word == "drain":
			for v, ok := q.Pop(); ok; v, ok = q.Pop() {
				if out = append(out, v); word == "pop" {
					break
				}
			}
		case word[0] == '-':
			if v, ok := q.Remove(handles[word[1:]]); !ok || v != word[1:] {
				t.Fatalf("%s: removed %q, %t", word, v, ok)
			}
		default:
			name, rest, _ := strings.Cut(word, ":")
			class, rest, _ := strings.Cut(rest, "/")
			key, amount, _ := strings.Cut(rest, "=")
			workload, weight, _ := strings.Cut(class, "@")
			var k ClassKey
			var cost float64
			if _, err := fmt.Sscan(weight+" "+amount, &k.Priority, &cost); err != nil {
				t.Fatalf("%s: %v", word, err)
			}
			k.Workload = workload
			handles[name] = q.Push(k, key, cost, name)
		}
	}
	return strings.Join(out, " ")
}

func TestOrder(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{
			"first in, first out inside a key",
			"1:w@1/k=1 2:w@1/k=9 3:w@1/k=1 4:w@1/k=0 drain", "1 2 3 4",
		},
		{
			"two to one",
			"a1:a@2/=1 a2:a@2/=1 a3:a@2/=1 a4:a@2/=1 b1:b@1/=1 b2:b@1/=1 drain", "a1 a2 b1 a3 a4 b2",
		},
		{
			"the cheap go before the dear",
			"a1:a@1/=3 a2:a@1/=3 b1:b@1/=1 b2:b@1/=1 b3:b@1/=1 b4:b@1/=1 drain", "b1 b2 a1 b3 b4 a2",
		},
		{"equal finish: who became active first", // the first mover has no other advantage (13.2, 20)
			"b1:b@1/=1 a1:a@1/=1 b2:b@1/=1 a2:a@1/=1 drain", "b1 a1 b2 a2"},
		{
			"keys take turns inside a class",
			"x1:w@1/x=1 x2:w@1/x=1 x3:w@1/x=1 y1:w@1/y=1 y2:w@1/y=1 z1:w@1/z=1 drain", "x1 y1 z1 x2 y2 x3",
		},
		{
			"many keys do not make a class larger",
			"a1:a@1/k=1 a2:a@1/k=1 a3:a@1/k=1 b1:b@1/x=1 b2:b@1/y=1 b3:b@1/z=1 drain", "a1 b1 a2 b2 a3 b3",
		},
		{
			"the same workload at two priorities is two classes",
			"l1:w@1/=1 h1:w@3/=1 l2:w@1/=1 h2:w@3/=1 h3:w@3/=1 drain", "h1 h2 l1 h3 l2",
		},
		{
			"who comes late gains nothing and loses nothing",
			"a1:a@1/=1 a2:a@1/=1 a3:a@1/=1 a4:a@1/=1 pop pop b1:b@1/=1 b2:b@1/=1 drain", "a1 a2 a3 b1 a4 b2",
		},
		{
			"who pauses gathers no credit",
			"b1:b@1/=1 a1:a@1/=1 a2:a@1/=1 a3:a@1/=1 a4:a@1/=1 pop pop pop b2:b@1/=1 b3:b@1/=1 drain",
			"b1 a1 a2 a3 b2 a4 b3",
		},
		{
			"a removed head costs its class nothing",
			"a1:a@1/=9 a2:a@1/=1 b1:b@1/=2 b2:b@1/=2 -a1 drain", "a2 b1 b2",
		},
		{
			"removal in the middle keeps the order",
			"1:w@1/k=1 2:w@1/k=1 3:w@1/k=1 4:w@1/k=1 -2 -4 5:w@1/k=1 drain", "1 3 5",
		},
		{
			"removal of a whole key",
			"x1:w@1/x=1 y1:w@1/y=1 x2:w@1/x=1 y2:w@1/y=1 -x1 -x2 drain", "y1 y2",
		},
		{
			"removal of a whole class, and its return",
			"a1:a@1/=1 b1:b@1/=1 -a1 b2:b@1/=1 a2:a@1/=1 drain", "b1 a2 b2",
		},
		{
			"costs of nothing go at once",
			"a1:a@1/=5 b1:b@1/=0 b2:b@1/=0 a2:a@1/=0 drain", "b1 b2 a1 a2",
		},
		{"nothing", "pop drain", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := play(t, tt.script); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", tt.script, got, tt.want)
			}
		})
	}
}

func TestEmpty(t *testing.T) {
	var q Queue[int]
	if _, ok := q.Pop(); ok {
		t.Error("popped from an empty queue")
	}
	if _, _, ok := q.Peek(); ok {
		t.Error("peeked into an empty queue")
	}
	if _, ok := q.Remove(Handle{}); ok {
		t.Error("the zero Handle is valid")
	}
	if got := q.Ahead(paid, "", 1e9, 10); got != 0 {
		t.Errorf("Ahead in an empty queue = %v", got)
	}
	q.Push(paid, "k", 3, 1)
	q.Pop()
	if got := q.Ahead(paid, "k", 1, 10); got != 0 || q.Len() != 0 || q.Cost() != 0 || q.ClassLen(paid) != 0 {
		t.Errorf("after the last pop: Ahead %v, Len %d, Cost %v, ClassLen %d", got, q.Len(), q.Cost(), q.ClassLen(paid))
	}
}

func TestHandlesAreNotReused(t *testing.T) {
	var q Queue[int]
	popped := q.Push(paid, "", 1, 1)
	q.Pop()
	second := q.Push(paid, "", 1, 2)
	if _, ok := q.Remove(popped); ok || q.Len() != 1 {
		t.Error("the handle of a popped item removed its successor")
	}
	if _, ok := q.Remove(second); !ok {
		t.Error("a valid handle was refused")
	}
	if _, ok := q.Remove(second); ok {
		t.Error("removed twice")
	}
	for _, h := range []Handle{{1, 0}, {2, 1}, {-1, 1}, {math.MaxInt32, 1}, {0, 1}} {
		if _, ok := q.Remove(h); ok {
			t.Errorf("forged handle %v accepted", h)
		}
	}
}

// backlog keeps every class and key with something to do and serves tokens; it returns what each got.
func backlog(weights []float64, keys int, tokens float64, cost func() float64) [][]float64 {
	var q Queue[[2]int]
	class := func(i int) ClassKey { return ClassKey{fmt.Sprint("w", i), weights[i]} }
	push := func(i, k int) { q.Push(class(i), fmt.Sprint("k", k), cost(), [2]int{i, k}) }
	got := make([][]float64, len(weights))
	for i := range weights {
		got[i] = make([]float64, keys)
		for k := range keys {
			push(i, k)
			push(i, k)
		}
	}
	for tokens > 0 {
		_, c, _ := q.Peek()
		who, _ := q.Pop()
		got[who[0]][who[1]] += c
		tokens -= c
		push(who[0], who[1])
	}
	return got
}

func sum(s []float64) (total float64) {
	for _, x := range s {
		total += x
	}
	return total
}

// checkShares compares what classes got with their weights, and keys within a class with each other.
func checkShares(t *testing.T, weights []float64, got [][]float64) {
	t.Helper()
	total := 0.0
	for i := range got {
		total += sum(got[i])
	}
	for i, keys := range got {
		share, due := sum(keys)/total, weights[i]/sum(weights)
		if math.Abs(share/due-1) > 0.01 {
			t.Errorf("weights %v: class %d got %.5f, due %.5f", weights, i, share, due)
		}
		for k := range keys {
			if mean := sum(keys) / float64(len(keys)); math.Abs(keys[k]/mean-1) > 0.01 {
				t.Errorf("weights %v: key %d of class %d got %.1f, mean %.1f", weights, k, i, keys[k], mean)
			}
		}
	}
}

func TestShares(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	between := func(lo, hi float64) float64 { return lo * math.Pow(hi/lo, rng.Float64()) }
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for range seeds {
		weights := make([]float64, 2+rng.IntN(6))
		lo := between(0.1, 25.5)
		for i := range weights {
			weights[i] = between(lo, 10*lo) // 0.1..255
		}
		keys := 1 + rng.IntN(3)
		tokens := 150 * float64(keys) * sum(weights) / lo
		checkShares(t, weights, backlog(weights, keys, tokens, func() float64 { return between(0.5, 2) }))
	}
	extremes := []float64{0.1, 255}
	checkShares(t, extremes, backlog(extremes, 1, 120*2551, func() float64 { return 1 }))
}

func TestLoneClassGetsEverything(t *testing.T) {
	weights := []float64{0.1}
	if got := backlog(weights, 3, 3000, func() float64 { return 1 }); sum(got[0]) < 3000 {
		t.Errorf("got %v of 3000", sum(got[0]))
	}
}

// Shares must survive an item so dear that virtual time loses its fine digits.
func TestSharesAfterGiant(t *testing.T) {
	first := true
	cost := func() float64 {
		if first {
			first = false
			return 1 << 52
		}
		return 1
	}
	weights := []float64{0.5, 200}
	var q Queue[int]
	q.Push(ClassKey{"giant", 1}, "", cost(), -1)
	push := func(i int) { q.Push(ClassKey{fmt.Sprint(i), weights[i]}, "", cost(), i) }
	q.Push(ClassKey{"tail", 1e-9}, "", 1e9, -1) // keeps the queue from emptying
	for q.Len() > 1 {
		q.Pop()
	}
	got := [][]float64{{0}, {0}}
	push(0)
	push(1)
	for range 200_000 {
		if i, _ := q.Pop(); i >= 0 {
			got[i][0]++
			push(i)
		}
	}
	checkShares(t, weights, got)
}

// ops drives the queue and the reference with the same calls and compares every answer.
type ops struct {
	t       interface{ Fatalf(string, ...any) }
	q       Queue[int]
	ref     reference
	handles []Handle
	cost    float64
	costs   map[int]float64
}

func (o *ops) push(class ClassKey, key string, cost float64) {
	id := len(o.handles)
	o.handles = append(o.handles, o.q.Push(class, key, cost, id))
	o.ref.push(class, key, cost, id)
	o.costs[id] = cost
	o.cost += cost
}

func (o *ops) pop() {
	peeked, cost, some := o.q.Peek()
	got, ok := o.q.Pop()
	want, wantOK := o.ref.pop()
	if got != want || ok != wantOK {
		o.t.Fatalf("Pop = %d, %t, want %d, %t", got, ok, want, wantOK)
	}
	if some != ok || peeked != got || ok && cost != o.costs[got] {
		o.t.Fatalf("Peek = %d, %v, %t, but Pop = %d, %t of cost %v", peeked, cost, some, got, ok, o.costs[got])
	}
	if ok {
		o.cost -= o.costs[got]
	}
}

func (o *ops) remove(id int) {
	v, ok := o.q.Remove(o.handles[id])
	if want := o.ref.remove(id); ok != want || ok && v != id {
		o.t.Fatalf("Remove(%d) = %d, %t, want %t", id, v, ok, want)
	}
	if ok {
		o.cost -= o.costs[id]
	}
}

func (o *ops) check() {
	if o.q.Len() != o.ref.len() || math.Abs(o.q.Cost()-o.cost) > 1e-6 {
		o.t.Fatalf("Len %d, Cost %v, want %d, %v", o.q.Len(), o.q.Cost(), o.ref.len(), o.cost)
	}
	n := 0
	o.q.Each(func(k ClassKey, _ string, cost float64, id int) {
		if n++; cost != o.costs[id] || o.q.ClassLen(k) == 0 {
			o.t.Fatalf("Each shows %d with cost %v, want %v", id, cost, o.costs[id])
		}
	})
	if n != o.q.Len() {
		o.t.Fatalf("Each shows %d items of %d", n, o.q.Len())
	}
}

func TestAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := &ops{t: t, costs: map[int]float64{}}
		seed := rapid.Uint64().Draw(t, "seed")
		classes, keys := rapid.IntRange(1, 6).Draw(t, "classes"), rapid.IntRange(1, 6).Draw(t, "keys")
		pushes := rapid.IntRange(1, 8).Draw(t, "pushes of 10")
		rng := rand.New(rand.NewPCG(seed, 0))
		for range rapid.IntRange(1, 600).Draw(t, "steps") {
			switch k := rng.IntN(10); {
			case k < pushes:
				c := rng.IntN(classes)
				o.push(ClassKey{fmt.Sprint(c / 2), float64(1+c%3) / 2}, fmt.Sprint(rng.IntN(keys)), float64(rng.IntN(5))*1.3)
			case k == 9 && len(o.handles) > 0:
				o.remove(rng.IntN(len(o.handles)))
			default:
				o.pop()
			}
			o.check()
		}
		for o.q.Len() > 0 {
			o.pop()
		}
		o.check()
	})
}

func FuzzQueue(f *testing.F) {
	f.Add([]byte("\x00\x11\x22\xc0\x33\x80\xff\x01\xc1\xc2"))
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz\xc0\xc1\x80\x81\x82\x83"))
	f.Fuzz(func(t *testing.T, script []byte) {
		o := &ops{t: t, costs: map[int]float64{}}
		for _, b := range script[:min(len(script), 500)] {
			switch {
			case b < 0x80:
				o.push(ClassKey{"", float64(1 + b&3)}, string('a'+rune(b>>2&3)), float64(b>>4&7))
			case b < 0xc0 || len(o.handles) == 0:
				o.pop()
			default:
				o.remove(int(b&0x3f) % len(o.handles))
			}
		}
		o.check()
	})
}

// Ahead must be close to what really comes out before an item pushed now: no further off than one item
// for each class and for each key of its own class.
func TestAhead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type push struct {
			class ClassKey
			key   string
			cost  float64
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		classes, keys := 1+rng.IntN(5), 1+rng.IntN(4)
		draw := func() push {
			c := rng.IntN(classes)
			return push{ClassKey{fmt.Sprint(c), float64(1 + c)}, fmt.Sprint(rng.IntN(keys)), 0.5 + rng.Float64()}
		}
		var q, copied Queue[bool]
		for range rapid.IntRange(0, 300).Draw(t, "queued") {
			p := draw()
			q.Push(p.class, p.key, p.cost, false)
			copied.Push(p.class, p.key, p.cost, false)
			if rng.IntN(3) == 0 {
				q.Pop()
				copied.Pop()
			}
		}
		p := draw()
		got := q.Ahead(p.class, p.key, p.cost, 100)
		rough := q.Ahead(p.class, p.key, p.cost, 0)
		copied.Push(p.class, p.key, p.cost, true)
		truth := 0.0
		for {
			_, cost, _ := copied.Peek()
			if mine, _ := copied.Pop(); mine {
				break
			}
			truth += cost
		}
		if margin := 1.5 * float64(classes+keys); math.Abs(got-truth) > margin {
			t.Fatalf("Ahead = %v, in truth %v, margin %v", got, truth, margin)
		}
		if q.Len() > 0 && (rough < 0 || rough > q.Cost()+1e-9) {
			t.Fatalf("Ahead without a look = %v, queued %v", rough, q.Cost())
		}
	})
}

func TestNoMemoryGrowth(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n /= 10
	}
	var q Queue[int]
	for i := range 100 {
		q.Push(ClassKey{strconv.Itoa(-i), 1}, "", 1, i)
	}
	before := heapInUse()
	for i := range n {
		key := strconv.Itoa(i)
		q.Push(ClassKey{key, float64(1 + i%9)}, key, 1, i)
		q.Pop()
	}
	if grown := int64(heapInUse()) - int64(before); grown > 1<<20 {
		t.Errorf("a million flows passed and left %d bytes behind", grown)
	}
	runtime.KeepAlive(&q)
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
