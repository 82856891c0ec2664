// SPDX-License-Identifier: Apache-2.0

//go:build unix

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/limit"
)

// The test binary runs itself as a child that is killed, or whose disk is full.
const (
	childEnv  = "SLUICE_LEDGER_TEST_CHILD"
	childDir  = "SLUICE_LEDGER_TEST_DIR"
	childTake = "take"
	childFull = "full"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(childDir)
	switch os.Getenv(childEnv) {
	case childTake:
		takeUntilKilled(dir)
	case childFull:
		signal.Ignore(syscall.SIGXFSZ)
		fillDisk(dir)
	default:
		os.Exit(m.Run())
	}
}

func child(what, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+what, childDir+"="+dir)
	cmd.Stderr = os.Stderr
	return cmd
}

var crashRule = limit.BucketRule{Capacity: 60, FillAmount: 40, Interval: time.Second, Continuous: true}

const (
	crashKeys  = 4
	crashSlots = 40
)

var crashSlotRule = SlotRule{Max: crashSlots, MaxInFlight: time.Hour}

// takeUntilKilled says what it was granted, one line each, as a server answers its clients: after the
// fact. Before it gives a slot back it says so, as a client does.
func takeUntilKilled(dir string) {
	m, err := NewMemory(Config{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	go m.Run(context.Background()) // until killed
	b, s := m.Buckets(1, crashRule), m.Slots(2, crashSlotRule)
	var held []SlotID
	for i := 0; ; i++ {
		key := fmt.Sprint("key", i%crashKeys)
		if c, _ := b.Take(context.Background(), key, 1, m.Now()); c.OK {
			fmt.Println("took", key)
		}
		if i%3 == 0 && len(held) > 0 {
			fmt.Println("releasing", uint64(held[0]))
			if s.Release("k", held[0]) {
				fmt.Println("released", uint64(held[0]))
			}
			held = held[1:]
		} else if c, _ := s.Take(context.Background(), "k", 1, m.Now()); c.OK {
			held = append(held, c.Slot)
			fmt.Println("holds", uint64(c.Slot))
		}
		// Accounts come and go as well.
		_, _ = b.Take(context.Background(), fmt.Sprint("passing", i), 1, m.Now())
	}
}

// However often the process is killed, nothing is given back: of each bucket at most capacity + rate *
// time is taken, slots held stay held, and slots released stay released.
func TestKilled(t *testing.T) {
	rounds := 25
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(7, 8))
	took := map[string]int{}
	state := map[SlotID]string{} // the last that was said about a slot
	start := time.Now()
	for round := range rounds {
		cmd := child(childTake, dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(out)
		first, err := lines.ReadString('\n')
		if err != nil || strings.HasPrefix(first, "error") {
			t.Fatalf("round %d: the child did not start: %s %v", round, first, err)
		}
		// The random moment: somewhere in the next lines.
		kill := rng.IntN(3000)
		for line, n := first, 0; err == nil; n++ {
			var what, key string
			fmt.Sscan(line, &what, &key)
			if what == "took" {
				took[key]++
			} else {
				var id SlotID
				fmt.Sscan(key, &id)
				state[id] = what
			}
			if n == kill {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			line, err = lines.ReadString('\n')
		}
		if err != io.EOF {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		most := crashRule.Capacity + crashRule.FillAmount*time.Since(start).Seconds()
		for key, n := range took {
			if float64(n) > most {
				t.Fatalf("after %d kills, %s took %d, at most %.1f may be", round+1, key, n, most)
			}
		}
		checkSlots(t, dir, state)
	}
	if took["key0"] < int(crashRule.Capacity) {
		t.Errorf("only %v taken: the test tests nothing", took)
	}
}

func checkSlots(t *testing.T, dir string, state map[SlotID]string) {
	t.Helper()
	m := newMemory(t, Config{Dir: dir})
	checkRecords(t, m)
	s := m.Slots(2, crashSlotRule)
	least, most := 0, 1 // a slot may be held that nobody was told of
	for _, what := range state {
		switch what {
		case "holds":
			least++
			most++
		case "releasing":
			most++
		}
	}
	used := int(crashSlots - s.Level("k", m.Now()).Remaining)
	if used < least || used > most {
		t.Fatalf("%d slots are held, want %d to %d", used, least, most)
	}
	for id, what := range state {
		if ok := s.Release("k", id); what == "holds" && !ok || what == "released" && ok {
			t.Fatalf("slot %x: last said %q, now released %t", id, what, ok)
		}
		state[id] = "released"
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	// What nobody was told of is given up now; the next round starts with nothing held.
	m = newMemory(t, Config{Dir: dir})
	m.Forget(2)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReopened(t *testing.T) {
	dir := t.TempDir()
	m := newMemory(t, Config{Dir: dir})
	rule := limit.BucketRule{Capacity: 5, Interval: time.Second}
	b, s := m.Buckets(1, rule), m.Slots(2, SlotRule{Max: 4, MaxInFlight: time.Minute})
	now := m.Now()
	long := strings.Repeat("long", 100)
	take(t, b, "a", 3, now)
	take(t, b, long, 4, now)
	b.Give("debt", -20, now)
	one := take(t, s, "k", 1, now)
	two := take(t, s, "k", 2, now.Add(time.Second))
	take(t, m.Buckets(3, rule), "a", 1, now)
	if _, err := NewMemory(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}

	m = newMemory(t, Config{Dir: dir})
	b, s = m.Buckets(1, rule), m.Slots(2, SlotRule{Max: 4, MaxInFlight: time.Hour})
	for key, want := range map[string]float64{"a": 2, long: 1, "debt": 0, "new": 5} {
		if c := b.Level(key, now); c.Remaining != want {
			t.Errorf("%.9q: %+v, want %v", key, c, want)
		}
	}
	if n := b.(*memoryBuckets).Len(); n != 3 {
		t.Errorf("%d accounts, want 3", n)
	}
	if got := m.Unannounced(); len(got) != 1 || got[0] != 3 {
		t.Errorf("unannounced limiters %v, want 3", got)
	}
	if m.Forget(3); len(m.Unannounced()) != 0 {
		t.Error("a forgotten limiter is still there")
	}
	if c := s.Level("k", now); c.Remaining != 1 || c.Wait != time.Minute {
		t.Errorf("slots: %+v, want 1 left and a minute to wait", c)
	}
	if c := s.Level("k", now.Add(time.Minute)); c.Remaining != 2 || c.Wait != time.Second {
		t.Errorf("slots after a minute: %+v, want 2 left and a second to wait", c)
	}
	if s.Release("k", one.Slot) || !s.Release("k", two.Slot) {
		t.Error("the wrong slot has expired")
	}
	checkRecords(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// The accounts' clock does not go back when the machine's does.
func TestClockGoesOn(t *testing.T) {
	dir := t.TempDir()
	m := newMemory(t, Config{Dir: dir})
	advance(m, 48*time.Hour) // the machine's clock was wrong
	s := m.Slots(1, SlotRule{Max: 1, MaxInFlight: time.Minute})
	take(t, s, "k", 1, m.Now())
	before := m.Now()
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = newMemory(t, Config{Dir: dir})
	if m.Now() < before {
		t.Errorf("the clock went back by %v", before.Sub(m.Now()))
	}
	s = m.Slots(1, SlotRule{Max: 1, MaxInFlight: time.Minute})
	if c := s.Level("k", m.Now()); c.Wait > time.Minute {
		t.Errorf("a slot that lasts a minute lasts %v", c.Wait)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// Shared accounts survive too: what a key holds there, it holds after a restart.
func TestReopenedWithoutRoom(t *testing.T) {
	dir := t.TempDir()
	m := newMemory(t, Config{Dir: dir, MaxAccounts: 64})
	flood := m.Buckets(1, limit.BucketRule{Capacity: 1, Interval: time.Second})
	for i := range 100 {
		take(t, flood, fmt.Sprint(i), 1, m.Now())
	}
	s := m.Slots(2, SlotRule{Max: 4, MaxInFlight: time.Hour})
	c := take(t, s, "k", 3, m.Now())
	if m.SharedTakes() == 0 || !c.OK {
		t.Fatal("there was room: the test tests nothing")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	m = newMemory(t, Config{Dir: dir})
	s = m.Slots(2, SlotRule{Max: 4, MaxInFlight: time.Hour})
	if c := take(t, s, "k", 2, m.Now()); c.OK {
		t.Errorf("got room, and then more than its limit: %+v", c)
	}
	if s.Release("other", c.Slot) || !s.Release("k", c.Slot) {
		t.Error("not released by its key after the restart")
	}
	checkRecords(t, m)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// useAll takes for many new keys until there is no room, and a little longer. Every key must stay
// within its limit, and keys that had an account keep it.
func useAll(m *Memory, keys int) error {
	rule := limit.BucketRule{Capacity: 2, Interval: time.Second}
	b, s := m.Buckets(1, rule), m.Slots(2, SlotRule{Max: 2, MaxInFlight: time.Hour})
	ctx := context.Background()
	for i := range keys {
		key := fmt.Sprint("key", i)
		for n := range 1 + 2*(i%100/99) { // some keys ask for more
			c, err := b.Take(ctx, key, 1, m.Now())
			if err != nil {
				return fmt.Errorf("bucket of %s: %w", key, err)
			}
			if c.OK && n == 2 {
				return fmt.Errorf("%s was admitted 3 of 2", key)
			}
		}
	}
	if m.SharedTakes() == 0 {
		return fmt.Errorf("there was room for all %d keys", keys)
	}
	if c, err := b.Take(ctx, "key0", 2, m.Now()); err != nil || c.OK {
		return fmt.Errorf("the first key lost its account: %+v, %v", c, err)
	}
	for i := range 100 {
		key := fmt.Sprint("s", i)
		c, err := s.Take(ctx, key, 2, m.Now())
		if err != nil || c.OK && !s.Release(key, c.Slot) || !c.OK {
			return fmt.Errorf("slots of %s: %+v, %v", key, c, err)
		}
	}
	return nil
}

// fillDisk runs in a child whose files may not grow beyond the second chunk.
func fillDisk(dir string) {
	most := uint64(headerSize + 2*chunkSize + 4096)
	err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: most, Max: most})
	if err == nil {
		var m *Memory
		if m, err = NewMemory(Config{Dir: dir}); err == nil {
			if err = useAll(m, 2*chunkRecords+5000); err == nil {
				err = m.arena.sync(m.Now())
			}
		}
	}
	fmt.Println(err)
}

func TestFileCannotGrow(t *testing.T) {
	dir := t.TempDir()
	out, err := child(childFull, dir).Output()
	if err != nil || !strings.Contains(string(out), "grow accounts file") {
		t.Fatalf("got %q, %v; want only that the file did not grow", out, err)
	}
	m := newMemory(t, Config{Dir: dir})
	defer m.Close()
	if n := m.Buckets(1, crashRule).(*memoryBuckets).Len(); n < chunkRecords {
		t.Errorf("%d accounts survived", n)
	}
}

// quiet drops what a test expects to be logged.
var quiet = slog.New(slog.DiscardHandler)
