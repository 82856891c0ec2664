// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"go.uber.org/goleak"
)

// counter counts ticks.
func counter(b *bench) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "ticks_total"})
	b.registry.MustRegister(c)
	return c
}

func TestSeriesSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "signals")
	b := open(t, dir, nil)
	c := counter(b)
	gone := prometheus.NewGauge(prometheus.GaugeOpts{Name: "gone"})
	b.registry.MustRegister(gone)
	for i := range 10 {
		c.Inc()
		b.tick(t, start.Add(time.Duration(i)*time.Second))
	}
	b.Close()
	b.Close() // the second time it does nothing
	if err := b.Collect(t.Context(), start.Add(10*time.Second)); err == nil {
		t.Error("a closed service collects")
	}

	b = open(t, dir, nil)
	again := start.Add(15 * time.Second)
	if got := b.value(t, `ticks_total`, start.Add(9*time.Second)); got != "10" {
		t.Errorf("after the restart: %s, want 10", got)
	}
	if got := b.value(t, `gone`, again); got != "0" {
		t.Errorf("gone = %s before the first collection, want its last value", got)
	}
	counter(b).Add(3) // from zero, in a new process
	b.tick(t, again)
	if got := b.value(t, `gone`, again); got != "empty" {
		t.Errorf("gone = %s, but this process has no such series", got)
	}
	// 1 to 10, then a reset and 3: 12, extrapolated by at most half an interval.
	if got := b.value(t, `round(increase(ticks_total[16s]))`, again); got != "12" && got != "13" {
		t.Errorf("increase over the restart: %s, want about 12", got)
	}
}

func TestBrokenDatabaseIsMovedAside(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "signals")
	for i := range keptAside + 2 {
		if i%2 == 0 {
			write(t, dir, "not even a directory")
		} else {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "wal"), "not a directory")
		}
		b := open(t, dir, nil)
		counter(b).Inc()
		b.tick(t, start)
		if got := b.value(t, `ticks_total`, start); got != "1" {
			t.Errorf("%d: a new database reads %s, want 1", i, got)
		}
		if !strings.Contains(b.log.String(), "moved aside") {
			t.Errorf("%d: the log does not say that the old one was moved: %s", i, b.log)
		}
		b.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := filepath.Glob(filepath.Join(parent, "signals.broken-*"))
	if err != nil || len(aside) != keptAside {
		t.Errorf("%d databases are kept aside, want %d (%v)", len(aside), keptAside, err)
	}
}

func TestWithoutADirectoryTheServiceLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent := filepath.Join(t.TempDir(), "parent")
		write(t, parent, "a file where a directory has to be")
		b := open(t, filepath.Join(parent, "signals"), nil)
		c := counter(b)
		c.Inc()
		s := subscribe(t, b.Service, `ticks_total`, time.Second)
		now := time.Now()
		if err := b.Collect(t.Context(), now); err == nil {
			t.Error("collected into nothing")
		}
		b.Step(t.Context(), now, time.Second)
		if r := s.Reading(); KindOf(r.Err) != KindClosed || b.Status().Err == nil {
			t.Errorf("%+v, %+v", r, b.Status())
		}
		a := b.Append(t.Context(), SourcePush)
		if _, err := a.Append(0, gauge(1), 0, 1, 1, nil, nil, storage.AOptions{}); KindOf(err) != KindClosed {
			t.Error(err)
		}
		if a.Commit() == nil || a.Rollback() != nil {
			t.Error("a batch for nothing was kept")
		}
		if err := os.Remove(parent); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tendEvery + time.Second)
		synctest.Wait()
		b.tick(t, time.Now())
		if r := s.Reading(); r.Value != 1 || b.Status().Err != nil {
			t.Errorf("once it works: %+v, %+v", r, b.Status())
		}
	})
}

func TestWhatACrashLeavesUnfinished(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "signals")
	b := open(t, dir, nil)
	c := counter(b)
	for i := range 100 {
		c.Inc()
		b.tick(t, start.Add(time.Duration(i)*time.Second))
	}
	b.Close()
	logs, err := filepath.Glob(filepath.Join(dir, "wal", "0*"))
	if err != nil || len(logs) == 0 {
		t.Fatal(err, logs)
	}
	last := logs[len(logs)-1]
	text, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string][]byte{
		"cut off":  text[:len(text)*2/3],
		"flipped":  append(append(append([]byte{}, text[:len(text)/2]...), 0xff, 0xff, 0xff, 0xff), text[len(text)/2+4:]...),
		"overlong": append(append([]byte{}, text...), "garbage"...),
	} {
		if err := os.WriteFile(last, broken, 0o600); err != nil {
			t.Fatal(err)
		}
		b := open(t, dir, nil)
		if err := b.Status().Err; err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		counter(b).Inc()
		now := start.Add(200 * time.Second)
		b.tick(t, now)
		if got := b.value(t, `ticks_total`, now); got != "1" {
			t.Errorf("%s: %s after it, want 1", name, got)
		}
		if got := b.value(t, `count_over_time(ticks_total[100s] @ `+fmt.Sprint(start.Unix()+99)+`) > 10`, now); got == "empty" {
			t.Errorf("%s: what was before the break is lost", name)
		}
		b.Close()
	}
}

// TestMain plays the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SIGNAL_TEST_DIR"); dir != "" {
		doomed(dir)
	}
	goleak.VerifyTestMain(m)
}

// doomed ticks until it is killed, and says what was kept.
func doomed(dir string) {
	c := DefaultConfig()
	r := prometheus.NewRegistry()
	ticks := prometheus.NewCounter(prometheus.CounterOpts{Name: "ticks_total"})
	r.MustRegister(ticks)
	c.Dir, c.Gatherer = dir, r
	s, err := Open(noTest{}, c)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		ticks.Inc()
		if err := s.Collect(noTest{}, start.Add(time.Duration(i)*time.Second)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i + 1)
	}
}

func TestKilledProcessLosesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "signals")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "SIGNAL_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kept := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscan(lines.Text(), &kept); err != nil {
			t.Fatal(lines.Text())
		}
		if kept == 500 {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if kept < 500 {
		t.Fatalf("killed after %d", kept)
	}
	b := open(t, dir, nil)
	if got, want := b.value(t, `ticks_total`, start.Add(time.Duration(kept-1)*time.Second)), fmt.Sprint(kept); got != want {
		t.Errorf("%s after the kill, want %s", got, want)
	}
}

func TestClockThatStepsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "signals")
		b := open(t, dir, nil)
		c := counter(b)
		s := subscribe(t, b.Service, `ticks_total`, time.Second)
		for i := range 10 {
			c.Inc()
			b.tick(t, start.Add(time.Duration(i)*time.Second))
		}
		little := start.Add(5 * time.Second)
		c.Inc()
		b.tick(t, little)
		if r := s.Reading(); r.Value != 6 { // of that time; samples wait for the clock to catch up
			t.Errorf("after a small step back: %+v", r)
		}
		back := start.Add(-time.Hour)
		if err := b.Collect(t.Context(), back); err == nil {
			t.Error("the tick of the step finds everything in order")
		}
		synctest.Wait() // the new database is opened in the background
		for i := range 3 {
			c.Inc()
			b.tick(t, back.Add(time.Duration(i+1)*time.Second))
		}
		if r := s.Reading(); r.Value != 14 {
			t.Errorf("after an hour back: %+v, want 14", r)
		}
		if aside, _ := filepath.Glob(dir + ".clock-*"); len(aside) != 1 {
			t.Errorf("aside: %v", aside)
		}
		if !strings.Contains(b.log.String(), "the clock was set back") {
			t.Errorf("log: %s", b.log)
		}
	})
}

func gauge(i int) labels.Labels {
	return labels.FromStrings(model.MetricNameLabel, "pushed", "n", fmt.Sprint(i))
}

// push sends one sample each of a range of series.
func push(t testing.TB, s *Service, from, to int, at time.Time) Refused {
	t.Helper()
	a := s.Append(t.Context(), SourcePush)
	for i := from; i < to; i++ {
		if _, err := a.Append(0, gauge(i), 0, at.UnixMilli(), float64(i), nil, nil, storage.AOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	return a.Refused()
}

func TestFloodOfSeries(t *testing.T) {
	b := open(t, t.TempDir(), func(c *Config) { c.MaxSeries = 1000 })
	now := time.Now().Truncate(time.Second)
	c := counter(b)
	c.Inc()
	b.tick(t, now)
	if r := push(t, b.Service, 0, 5000, now); r.Limit != 5000-899 || r.Err() == nil || !strings.Contains(r.Err().Error(), "signals.max_series") {
		t.Errorf("refused %+v, want 4101: others have 900 of 1000", r)
	}
	if n := b.Status().Series; n != 900 {
		t.Errorf("%d series, want 900", n)
	}
	if n := testutil.ToFloat64(b.metrics.refused.WithLabelValues("push", "limit")); n != 4101 {
		t.Errorf("%v refused samples counted", n)
	}
	if n := strings.Count(b.log.String(), "too many"); n != 1 {
		t.Errorf("it was logged %d times, want once a minute", n)
	}
	// Those that are in go on.
	if r := push(t, b.Service, 0, 899, now.Add(time.Second)); r.Err() != nil {
		t.Error(r.Err())
	}
	// This process has room still.
	own := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "own"}, []string{"n"})
	b.registry.MustRegister(own)
	for i := range 200 {
		own.WithLabelValues(fmt.Sprint(i)).Set(1)
	}
	b.tick(t, now.Add(2*time.Second))
	if got := b.value(t, `count(own)`, now.Add(2*time.Second)); got != "100" {
		t.Errorf("%s series of this process, want 100", got)
	}
	if got := b.value(t, `ticks_total`, now.Add(2*time.Second)); got != "1" {
		t.Errorf("ticks_total = %s", got)
	}
}

func TestSamplesOfOthers(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	now := time.Now()
	counter(b).Inc()
	b.registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "go_things"}))
	b.tick(t, now)
	add := func(at time.Time, pairs ...string) (Refused, error) {
		t.Helper()
		a := b.Append(t.Context(), SourcePush)
		_, err := a.Append(0, labels.FromStrings(pairs...), 0, at.UnixMilli(), 1, nil, nil, storage.AOptions{})
		if cerr := a.Commit(); cerr != nil {
			t.Fatal(cerr)
		}
		return a.Refused(), err
	}
	if r, err := add(now, model.MetricNameLabel, "theirs"); err != nil || r.Err() != nil {
		t.Error(err, r)
	}
	if r, err := add(now, model.MetricNameLabel, "go_things", "job", "app"); err != nil || r.Err() != nil {
		t.Errorf("what every program measures: %v, %v", err, r)
	}
	for _, pairs := range [][]string{
		{model.MetricNameLabel, "ticks_total", "job", "prometheus"},
		{model.MetricNameLabel, "theirs", "job", "sluice"},
	} {
		if r, err := add(now, pairs...); err != nil || r.Reserved != 1 || !strings.Contains(r.Err().Error(), "rename or drop") {
			t.Errorf("%v: %v, %v", pairs, err, r)
		}
	}
	if r, err := add(now.Add(time.Hour), model.MetricNameLabel, "theirs"); err != nil || r.Time != 1 {
		t.Errorf("from the future: %v, %v", err, r)
	}
	if r, err := add(now.Add(-5*time.Minute), model.MetricNameLabel, "theirs"); err != nil || r.Total() != 0 {
		t.Errorf("five minutes late: %v, %v", err, r)
	}
	if r, err := add(now.Add(-time.Hour), model.MetricNameLabel, "theirs"); err != nil || r.Time != 1 {
		t.Errorf("an hour late: %v, %v", err, r)
	}
	long := strings.Repeat("x", mostValue+1)
	for _, pairs := range [][]string{
		{"a", "b"},
		{model.MetricNameLabel, "x", "a", long},
		{model.MetricNameLabel, "x", long, "a"},
		{model.MetricNameLabel, "x", "a", "\xff"},
		{model.MetricNameLabel, "x", "", "a"},
	} {
		if r, err := add(now, pairs...); err != nil || r.Invalid != 1 || len(r.First) > 2000 {
			t.Errorf("%.100q: %v, %v", pairs, err, r)
		}
	}
	many := []string{model.MetricNameLabel, "x"}
	for i := range mostLabels {
		many = append(many, fmt.Sprint("l", i), "v")
	}
	if r, err := add(now, many...); err != nil || r.Invalid != 1 {
		t.Errorf("many labels: %v, %v", err, r)
	}
	if got := b.value(t, `count({__name__=~".+", job=""})`, now); got != "1" {
		t.Errorf("%s series are kept, want theirs only", got)
	}
}

// noTest is a context outside of tests.
type noTest struct{}

func (noTest) Deadline() (time.Time, bool) { return time.Time{}, false }
func (noTest) Done() <-chan struct{}       { return nil }
func (noTest) Err() error                  { return nil }
func (noTest) Value(any) any               { return nil }

// The log of what is in memory does not outgrow the disk allowed, however fast samples come.
func TestLogIsCutEarly(t *testing.T) {
	b := open(t, t.TempDir(), nil)
	b.store.stop() // it does not look after itself any more
	b.store.config.MaxBytes = 4 << 20
	now := time.Now().Truncate(time.Second)
	from := now.Add(-10 * time.Minute)
	random := rand.New(rand.NewPCG(1, 2))
	for at := from; !at.After(now); at = at.Add(2 * time.Second) {
		a := b.Append(t.Context(), SourcePush)
		for i := range 1000 {
			if _, err := a.Append(0, gauge(i), 0, at.UnixMilli(), random.Float64(), nil, nil, storage.AOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	before := b.store.db.Head().Size()
	if before <= b.store.config.MaxBytes/2 {
		t.Fatalf("the log has %d bytes only", before)
	}
	b.store.relieve()
	if after := b.store.db.Head().MinTime(); after < now.Add(-2*keepInHead).UnixMilli() {
		t.Errorf("memory begins at %v", time.UnixMilli(after))
	}
	if n := len(b.store.db.Blocks()); n != 1 {
		t.Errorf("%d blocks, want one", n)
	}
	if got := b.value(t, `count(count_over_time(pushed[11m]) == 301)`, now); got != "1000" {
		t.Errorf("%s series are whole", got)
	}
	b.store.relieve() // there is nothing worth a block now
	if n := len(b.store.db.Blocks()); n != 1 {
		t.Errorf("%d blocks after a second call", n)
	}
	if r := push(t, b.Service, 0, 1000, now.Add(time.Second)); r.Err() != nil {
		t.Error(r.Err())
	}
}
