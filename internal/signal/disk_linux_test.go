// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/prometheus/prometheus/storage"
)

func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("only root can make a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(disk, "signals")
	b := open(t, dir, nil)
	c := counter(b)
	q := subscribe(t, b.Service, `ticks_total`, time.Second)
	now := time.Now()
	b.tick(t, now)
	var err error
	for i := 0; err == nil; i++ {
		if i == 100 {
			t.Fatal("the disk does not get full")
		}
		a := b.Append(t.Context(), SourcePush)
		for j := range 1000 {
			if _, err := a.Append(0, gauge(1000*i+j), 0, now.UnixMilli(), 1, nil, nil, storage.AOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		err = a.Commit()
	}
	if KindOf(err) != KindClosed || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("%v", err)
	}
	// The server lives and says so; readings go on with what there is.
	c.Inc()
	now = now.Add(time.Second)
	if err := b.Collect(t.Context(), now); err == nil {
		t.Error("collected onto a full disk")
	}
	b.Step(t.Context(), now, time.Second)
	if r := q.Reading(); !r.Valid() {
		t.Errorf("%+v", r)
	}
	if testutil.ToFloat64(b.metrics.appendErrs.WithLabelValues("push")) != 1 || testutil.ToFloat64(b.metrics.appendErrs.WithLabelValues("self")) != 1 || !strings.Contains(b.log.String(), "samples cannot be kept") {
		t.Errorf("lost samples are not reported: %s", b.log)
	}
	// With space again it goes on.
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	c.Inc()
	b.tick(t, now.Add(time.Second))
	if r := q.Reading(); r.Value != 2 {
		t.Errorf("with space again: %+v", r)
	}
	b.Close()
	b = open(t, dir, nil)
	if got := b.value(t, `ticks_total`, now.Add(time.Second)); got != "2" {
		t.Errorf("after a restart: %s", got)
	}
}
