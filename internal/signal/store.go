// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/compression"
)

// What the database is tuned to. Ticks are seconds or less apart, so its pieces are small: what a crash has
// to replay and what the disk holds beyond the blocks stays little.
const (
	blockDuration = 30 * time.Minute
	segmentSize   = 16 << 20
	// outOfOrder is how late a sample may come after a newer one of its series, such as after a retry.
	outOfOrder = 10 * time.Minute
	// ahead is how far in the future a sample of others may be. The database counts time by its newest sample,
	// so one from next year would be the end of all others.
	ahead = 5 * time.Minute
	// keptAside is how many databases that could not be opened are kept.
	keptAside = 2
	// openWait is how long the server waits for its time series before it starts without.
	openWait = 2 * time.Second
	// tendEvery is how often the store looks after itself.
	tendEvery = 10 * time.Second
	// keepInHead is the newest part of the series that an early block leaves in memory, and shortBlock the
	// shortest of such blocks.
	keepInHead = time.Minute
	shortBlock = 2 * time.Minute
)

var (
	errNoStore = &Error{KindClosed, "the time series cannot be used now; the log says why"}
	errTooMany = errors.New("too many series")
)

// store is the database: it opens, renews, bounds and closes it. Its methods may be called concurrently.
type store struct {
	dir     string
	config  Config
	log     *slog.Logger
	metrics *metrics

	series  atomic.Int64  // in the head
	replays atomic.Bool   // the series being made were there before: none may be refused
	opened  chan struct{} // closed when it was tried for the first time
	tending sync.WaitGroup
	stop    context.CancelFunc

	mu       sync.Mutex
	db       *tsdb.DB      // nil while there is none
	opening  bool          // for the first time
	users    int           // of db
	draining chan struct{} // closed when the last user has gone; nil when nobody waits for it
	closed   bool
}

// openStore opens the database and looks after it until close. It does not fail: without a database nothing
// is kept, and it tries again from time to time. Nor does it wait long: what 100,000 series leave in the log
// can take a quarter of a minute to read, and the server has other things to do.
func openStore(ctx context.Context, c Config, m *metrics) *store {
	s := &store{dir: filepath.Clean(c.Dir), config: c, log: c.Logger, metrics: m, opened: make(chan struct{})}
	ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.opening = true
	s.tending.Go(func() {
		db := s.open()
		s.mu.Lock()
		s.db, s.opening = db, false
		s.mu.Unlock()
		close(s.opened)
		s.tend(ctx)
	})
	t := time.NewTimer(openWait)
	defer t.Stop()
	select {
	case <-s.opened:
	case <-t.C:
		s.log.Warn("the time series of the past are still being read: signals of policies begin when that is done", "dir", s.dir)
	}
	return s
}

// open opens the database. If it is broken, it is moved aside and an empty one opened. nil: not even that.
func (s *store) open() *tsdb.DB {
	db, err := s.openDir()
	if err == nil {
		return db
	}
	s.log.Error("the time series cannot be read: they are moved aside and start anew", "dir", s.dir, "error", err)
	if err := s.moveAside("broken"); err != nil {
		s.log.Error("the time series cannot be moved aside: nothing is kept until it works", "dir", s.dir, "error", err)
		return nil
	}
	if db, err = s.openDir(); err != nil {
		s.log.Error("time series cannot be kept: policies have no signals until it works", "dir", s.dir, "error", err)
		return nil
	}
	return db
}

func (s *store) openDir() (db *tsdb.DB, err error) {
	s.series.Store(0)
	s.replays.Store(true)
	defer s.replays.Store(false)
	o := tsdb.DefaultOptions()
	o.WALSegmentSize = segmentSize
	o.WALCompression = compression.Snappy
	o.RetentionDuration = s.config.Retention.Milliseconds()
	o.MaxBytes = s.config.MaxBytes
	o.MinBlockDuration = blockDuration.Milliseconds()
	o.MaxBlockDuration = max(s.config.Retention/10, blockDuration).Milliseconds()
	o.MaxBlockChunkSegmentSize = 64 << 20 // they are allocated in full before they are cut to size
	o.HeadChunksWriteBufferSize = chunks.MinWriteBufferSize
	o.StripeSize = 4096
	o.OutOfOrderTimeWindow = outOfOrder.Milliseconds()
	o.NoLockfile = true // the data directory has a lock of its own
	o.SeriesLifecycleCallback = s
	return tsdb.Open(s.dir, quiet(s.log), nil, o, nil)
}

// moveAside renames the directory, so that somebody can look at it, and removes what was moved long ago.
func (s *store) moveAside(why string) error {
	aside := fmt.Sprintf("%s.%s-%s", s.dir, why, time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.Rename(s.dir, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.log.Warn("time series were moved aside", "to", aside)
	old, err := filepath.Glob(globEscape(s.dir) + "." + why + "-*")
	if err != nil {
		return nil //nolint:nilerr // the pattern is ours; old copies that stay are no reason not to start
	}
	slices.Sort(old)
	for len(old) > keptAside {
		if err := os.RemoveAll(old[0]); err != nil {
			s.log.Warn("time series that were moved aside cannot be removed", "dir", old[0], "error", err)
		}
		old = old[1:]
	}
	return nil
}

// globEscape makes a path match itself.
func globEscape(path string) string {
	var b []byte
	for i := range len(path) {
		if c := path[i]; c == '*' || c == '?' || c == '[' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// acquire gives out the database until release is called. It does not wait: false means that there is none.
func (s *store) acquire() (*tsdb.DB, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil || s.draining != nil || s.closed {
		return nil, false
	}
	s.users++
	return s.db, true
}

func (s *store) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 && s.draining != nil {
		close(s.draining)
	}
}

// drain refuses new users, waits for those there are, and closes the database. It returns false when
// somebody else does so already.
func (s *store) drain() bool {
	s.mu.Lock()
	if s.draining != nil {
		s.mu.Unlock()
		return false
	}
	gone := make(chan struct{})
	s.draining = gone
	if s.users == 0 {
		close(gone)
	}
	db := s.db
	s.mu.Unlock()

	<-gone
	if db != nil {
		if err := db.Close(); err != nil {
			s.log.Error("the time series were not closed properly", "dir", s.dir, "error", err)
		}
	}
	return true
}

// renew puts the database aside and starts an empty one, in the background.
func (s *store) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining != nil || s.closed {
		return
	}
	s.tending.Go(func() {
		if !s.drain() {
			return
		}
		var db *tsdb.DB
		if err := s.moveAside("clock"); err != nil {
			s.log.Error("the time series cannot be moved aside", "dir", s.dir, "error", err)
		} else {
			db = s.open()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.db, s.draining = db, nil
	})
}

// close closes the database; it waits for who still uses it.
func (s *store) close() {
	s.mu.Lock()
	already := s.closed
	s.closed = true
	s.mu.Unlock()
	if already {
		return
	}
	s.stop()
	s.tending.Wait()
	s.drain()
}

// tend looks after the store.
func (s *store) tend(ctx context.Context) {
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.reopen()
			s.relieve()
		}
	}
}

// reopen opens the database if that failed before.
func (s *store) reopen() {
	s.mu.Lock()
	missing := s.db == nil && s.draining == nil && !s.opening && !s.closed
	s.mu.Unlock()
	if !missing {
		return
	}
	if db, err := s.openDir(); err == nil { // only tend and renew open, and renew needs a database
		s.log.Info("time series are kept again", "dir", s.dir)
		s.mu.Lock()
		s.db = db
		s.mu.Unlock()
	}
}

// relieve writes a block early when the log of what is in memory alone takes half of the disk allowed: the
// database itself goes by time only.
func (s *store) relieve() {
	db, ok := s.acquire()
	if !ok {
		return
	}
	defer s.release()
	head := db.Head()
	if head.Size() <= s.config.MaxBytes/2 {
		return
	}
	mint, maxt := head.MinTime(), head.MaxTime()-keepInHead.Milliseconds()
	if maxt-mint < shortBlock.Milliseconds() {
		return
	}
	if err := db.CompactHead(tsdb.NewRangeHead(head, mint, maxt)); err != nil {
		s.log.Warn("the log of the time series is large and could not be cut", "bytes", head.Size(), "error", err)
	}
}

// bytes is the disk that the series take.
func (s *store) bytes() int64 {
	db, ok := s.acquire()
	if !ok {
		return 0
	}
	defer s.release()
	total := db.Head().Size()
	for _, b := range db.Blocks() {
		total += b.Size()
	}
	return total
}

// PreCreation implements tsdb.SeriesLifecycleCallback: it bounds the series.
func (s *store) PreCreation(ls labels.Labels) error {
	if s.replays.Load() {
		return nil
	}
	most := s.config.MaxSeries
	if ls.Get("job") != Job {
		most -= most / 10
	}
	if s.series.Load() >= int64(most) {
		return errTooMany
	}
	return nil
}

// PostCreation implements tsdb.SeriesLifecycleCallback.
func (s *store) PostCreation(labels.Labels) { s.series.Add(1) }

// PostDeletion implements tsdb.SeriesLifecycleCallback.
func (s *store) PostDeletion(gone map[chunks.HeadSeriesRef]labels.Labels) {
	s.series.Add(-int64(len(gone)))
}

// Querier implements storage.Queryable. It holds the database until it is closed.
func (s *store) Querier(mint, maxt int64) (storage.Querier, error) {
	db, ok := s.acquire()
	if !ok {
		return nil, promql.ErrStorage{Err: errNoStore}
	}
	q, err := db.Querier(mint, maxt)
	if err != nil {
		s.release()
		return nil, err
	}
	return &heldQuerier{Querier: q, release: sync.OnceFunc(s.release)}, nil
}

type heldQuerier struct {
	storage.Querier
	release func()
}

func (q *heldQuerier) Close() error {
	defer q.release()
	return q.Querier.Close()
}
