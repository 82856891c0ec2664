// SPDX-License-Identifier: Apache-2.0

//go:build unix

package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

var (
	damageRule  = limit.BucketRule{Capacity: 9, Interval: time.Second}
	damageSlots = SlotRule{Max: 9, MaxInFlight: time.Hour}
)

// sample returns a file with accounts of all kinds, and the slots held in it.
func sample(t *testing.T) (data []byte, held map[SlotID]string) {
	t.Helper()
	dir := t.TempDir()
	m := newMemory(t, Config{Dir: dir})
	b, s := m.Buckets(1, damageRule), m.Slots(2, damageSlots)
	held = map[SlotID]string{}
	for i := range 40 {
		key := fmt.Sprint(strings.Repeat("k", i), i)
		take(t, b, key, float64(i%9), m.Now())
		for j := range i % 4 {
			c := take(t, s, key, 1, m.Now().Add(-time.Duration(j)*time.Minute))
			if j == 0 {
				s.Release(key, c.Slot)
			} else {
				held[c.Slot] = key
			}
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return data, held
}

// open opens a file with these contents; close it with abandon, which spares the disk.
func open(t *testing.T, data []byte) (*Memory, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return NewMemory(Config{Dir: dir, Logger: quiet})
}

func abandon(t *testing.T, m *Memory) {
	t.Helper()
	for _, b := range m.arena.maps {
		if err := unmap(b); err != nil {
			t.Error(err)
		}
	}
	if err := m.arena.file.Close(); err != nil {
		t.Error(err)
	}
}

// state is everything that a ledger knows. Of long keys it shows only the beginning.
func state(m *Memory) map[string]float64 {
	m.Buckets(1, damageRule)
	m.Slots(2, damageSlots)
	all := map[string]float64{}
	m.Each(func(a Account) { all[fmt.Sprint(a.Limiter, a.Kind, a.Key)] += 100 + a.Used })
	return all
}

// A damaged header or record is refused with a clear message, or changes nothing. It never panics.
func TestFlippedBytes(t *testing.T) {
	data, held := sample(t)
	m, err := open(t, data)
	if err != nil {
		t.Fatal(err)
	}
	want := state(m)
	abandon(t, m)
	var offsets, live []int
	for i := range headerUsed {
		offsets = append(offsets, i)
	}
	for i := headerSize; i < len(data); i += recordSize {
		if data[i+recordSize-4] != typFree {
			live = append(live, i)
		}
	}
	rng := rand.New(rand.NewPCG(9, 10))
	trials := 400
	if testing.Short() {
		trials = 100
	}
	for i := range trials {
		if i%10 == 0 {
			offsets = append(offsets, rng.IntN(len(data)))
		} else {
			offsets = append(offsets, live[rng.IntN(len(live))]+rng.IntN(recordSize))
		}
	}
	refused := 0
	for _, off := range offsets {
		flip := byte(1 + rng.IntN(255))
		data[off] ^= flip
		if checkDamaged(t, data, off, want, held) {
			refused++
		}
		data[off] ^= flip
	}
	if refused < len(offsets)/2 {
		t.Errorf("only %d of %d damaged files were refused", refused, len(offsets))
	}
}

func checkDamaged(t *testing.T, data []byte, off int, want map[string]float64, held map[SlotID]string) (refused bool) {
	t.Helper()
	m, err := open(t, data)
	if err != nil {
		for _, word := range []string{FileName, "restore it from a backup"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("byte %d: the message %q does not say %q", off, err, word)
			}
		}
		return true
	}
	defer abandon(t, m)
	if off < headerUsed {
		t.Errorf("byte %d of the header was damaged, and nobody noticed", off)
	}
	got := state(m)
	rec := (off-headerSize)/recordSize*recordSize + headerSize
	if in := off - rec; off >= headerSize && data[rec+60] == typBucket && in >= 8 && in < 24 {
		// The numbers of a bucket: it may be emptier or fuller, but it is there.
		if len(got) != len(want) {
			t.Errorf("byte %d: %d accounts of %d", off, len(got), len(want))
		}
		for key, n := range got {
			if n < 0 {
				t.Errorf("byte %d: %s has more than its capacity", off, key)
			}
		}
		return false
	}
	if !maps.Equal(got, want) {
		t.Errorf("byte %d (of its record: %d) was damaged, and changed %d accounts to %d", off, off-rec, len(want), len(got))
	}
	s := m.Slots(2, damageSlots)
	for id, key := range held {
		if !s.Release(key, id) {
			t.Errorf("byte %d was damaged, and a slot lost", off)
		}
	}
	return false
}

func TestCutFile(t *testing.T) {
	data, _ := sample(t)
	m, err := open(t, data)
	if err != nil {
		t.Fatal(err)
	}
	want := state(m)
	abandon(t, m)
	for _, size := range []int{0, 1, headerUsed - 1, headerUsed, headerSize - 1, headerSize, headerSize + 64, len(data) - 4096, len(data) - 1} {
		if m, err := open(t, data[:size]); err == nil || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("cut after %d of %d bytes: %v", size, len(data), err)
			if err == nil {
				abandon(t, m)
			}
		}
	}
	// What once was larger is cut even where a chunk ends.
	if m, err = open(t, append(bytes.Clone(data), make([]byte, chunkSize)...)); err != nil {
		t.Fatal(err)
	}
	path := m.arena.file.Name()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	grown, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, grown[:len(data)]); err == nil || !strings.Contains(err.Error(), "cut short") {
		t.Errorf("cut by a whole chunk: %v", err)
	}
	// Growing may have stopped anywhere.
	for _, more := range []int{1, 4096, chunkSize - 1, chunkSize, chunkSize + 5} {
		m, err := open(t, append(bytes.Clone(data), make([]byte, more)...))
		if err != nil {
			t.Errorf("%d bytes more: %v", more, err)
			continue
		}
		if !maps.Equal(state(m), want) {
			t.Errorf("%d bytes more changed the accounts", more)
		}
		if take(t, m.Buckets(5, damageRule), "new", 1, m.Now()); m.SharedTakes() > 0 {
			t.Errorf("%d bytes more: no room for a new account", more)
		}
		checkRecords(t, m)
		abandon(t, m)
	}
}

func TestForeignFiles(t *testing.T) {
	data, _ := sample(t)
	other := bytes.Clone(data)
	for i := 16; i < 40; i += 8 {
		binary.BigEndian.PutUint64(other[i:], binary.LittleEndian.Uint64(data[i:]))
	}
	newer := bytes.Clone(data)
	newer[15]++
	for want, data := range map[string][]byte{
		"another byte order": other,
		"not a file of this": newer,
		"release of sluice":  bytes.Repeat([]byte("SQLite format 3\x00"), 1<<16),
		"cut short":          []byte("hello"),
	} {
		if _, err := open(t, data); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := NewMemory(Config{Dir: filepath.Join(t.TempDir(), "no", "such")}); err == nil {
		t.Error("opened in a directory that does not exist")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMemory(Config{Dir: dir}); err == nil {
		t.Error("opened a directory")
	}
}

// A power failure leaves some pages as they were a second ago and some as they are now. Whatever the
// mixture, the ledger starts.
func TestPowerFailure(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	dir := t.TempDir()
	m := newMemory(t, Config{Dir: dir, MaxAccounts: 600})
	defer m.Close()
	rng := rand.New(rand.NewPCG(11, 12))
	b := m.Buckets(1, limit.BucketRule{Capacity: 2, FillAmount: 2, Interval: time.Second, Continuous: true})
	s := m.Slots(2, damageSlots)
	held := map[SlotID]string{}
	work := func() []byte {
		for range 1000 {
			advance(m, time.Duration(rng.IntN(10))*time.Millisecond)
			key := fmt.Sprint(rng.IntN(400))
			_, _ = b.Take(context.Background(), key, 1, m.Now())
			if c, err := s.Take(context.Background(), key, 1, m.Now()); err == nil && c.OK {
				held[c.Slot] = key
			}
			for id, key := range held {
				if len(held) > 150 {
					s.Release(key, id)
					delete(held, id)
				}
				break
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, FileName))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	then := work()
	for range rounds {
		now := work()
		mixed := bytes.Clone(now)
		for page := 0; page < len(mixed); page += 4096 {
			if rng.IntN(2) == 0 && page < len(then) {
				copy(mixed[page:page+4096], then[page:])
			}
		}
		then = now
		after, err := open(t, mixed)
		if err != nil {
			t.Fatal(err)
		}
		state(after)
		checkRecords(t, after)
		take(t, after.Slots(2, damageSlots), "somebody", 1, after.Now())
		abandon(t, after)
	}
}
