// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestHeldFollowsEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() (*Memory, *memorySlots) {
			m, err := NewMemory(Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return m, m.Slots(1, SlotRule{Max: 10, MaxInFlight: time.Minute}).(*memorySlots)
		}
		m, s := open()
		var first SlotID
		for i := range 20 {
			c, err := s.Take(context.Background(), fmt.Sprint(i%4), 1.5, m.Now())
			if err != nil || !c.OK {
				t.Fatal(c, err)
			}
			if i == 0 {
				first = c.Slot
			}
		}
		if h := s.Held(); h != 30 {
			t.Errorf("%v held, want 30", h)
		}
		s.Release("0", first)
		s.Release("0", first)
		if h := s.Held(); h != 28.5 {
			t.Errorf("%v held after a release, want 28.5", h)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		m, s = open()
		defer m.Close()
		if h := s.Held(); h != 28.5 {
			t.Errorf("%v held after a restart, want 28.5", h)
		}
		ctx, stop := context.WithCancel(context.Background())
		defer stop()
		go m.Run(ctx)
		time.Sleep(3 * time.Minute) // nobody asks; the sweep finds slots that are over and then the accounts
		synctest.Wait()
		if h, n := s.Held(), s.Len(); h != 0 || n != 0 {
			t.Errorf("%v held in %d accounts after their time, want none", h, n)
		}
	})
}
