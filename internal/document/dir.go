// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// WatchConfig says which directory to watch. Dir and Catalog are required.
type WatchConfig struct {
	Dir     string
	Catalog *Catalog
	Logger  *slog.Logger // nil: no log

	// Debounce is how long the directory must be quiet before it is scanned, so that an editor's save
	// or a git checkout is seen whole. 0: 200 ms.
	Debounce time.Duration
	// Rescan is how often the directory is scanned without being told of a change: notifications do
	// not come from network file systems or from behind symbolic links. 0: 30 s.
	Rescan time.Duration
	// EmptyGrace is how long a directory may be empty after a start before the policies that came from
	// it in an earlier run are deleted: a volume may be mounted or a repository cloned after we start.
	// A file that this process has seen is deleted without grace. 0: 30 s.
	EmptyGrace time.Duration
}

// Watch keeps the catalog equal to a directory: every *.yaml, *.yml and *.json file in it is one
// policy, a changed file updates it, a removed file deletes it. Hidden files and subdirectories are
// left alone; symbolic links are followed, also when the directory is swapped as a whole, as Kubernetes
// does with mounted ConfigMaps. A file with mistakes, an empty or unreadable file changes nothing, nor
// does a directory that cannot be read. Methods may be called concurrently.
type Watch struct {
	config WatchConfig
	log    *slog.Logger

	scanning sync.Mutex // held during a scan; lock order: scanning, then the catalog's locks, then mu
	files    map[string]file
	started  time.Time // of the first scan
	sawFile  bool      // any scan found a policy file

	mu       sync.Mutex
	problems []Problem
}

// NewWatch makes a watch that does nothing until Scan or Run.
func NewWatch(config WatchConfig) (*Watch, error) {
	if config.Dir == "" {
		return nil, errors.New("policy directory: got no path, want the path of a directory")
	}
	if config.Catalog == nil {
		return nil, errors.New("policy directory: Catalog is required")
	}
	for _, d := range []*time.Duration{&config.Debounce, &config.Rescan, &config.EmptyGrace} {
		if *d < 0 {
			return nil, fmt.Errorf("policy directory: got a negative time %v, want more than 0s, or 0s for the default", *d)
		}
	}
	if config.Debounce == 0 {
		config.Debounce = 200 * time.Millisecond
	}
	if config.Rescan == 0 {
		config.Rescan = 30 * time.Second
	}
	if config.EmptyGrace == 0 {
		config.EmptyGrace = 30 * time.Second
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.Dir = filepath.Clean(config.Dir)
	return &Watch{config: config, log: config.Logger, files: map[string]file{}}, nil
}

// Problems lists what is wrong with the directory as of the last scan, by file.
func (w *Watch) Problems() []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.problems)
}

// Run scans the directory now and whenever it changes, until ctx ends; then it returns nil. Problems
// are logged, not returned. Where the system cannot notify, for example because it ran out of inotify
// watches, changes are found by the periodic scan only.
func (w *Watch) Run(ctx context.Context) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.log.Warn("no notification of changed policy files; the directory is read from time to time",
			"dir", w.config.Dir, "interval", w.config.Rescan, "error", err)
		return w.loop(ctx, nil, func() { _ = w.Scan(ctx) })
	}
	events := make(chan struct{}, 1)
	var forwarding sync.WaitGroup
	forwarding.Go(func() { forward(notify, events) })
	defer forwarding.Wait()
	defer func() { _ = notify.Close() }()
	var last error
	return w.loop(ctx, events, func() {
		// Before the scan, so that nothing slips between; every time, because a directory that was
		// replaced takes its watch with it.
		err := notify.Add(w.config.Dir)
		if err != nil && last == nil {
			w.log.Warn("no notification of changed policy files for now", "dir", w.config.Dir, "error", err)
		}
		last = err
		_ = w.Scan(ctx)
	})
}

// loop calls scan at once, when events have been quiet for the debounce time, and every rescan time.
func (w *Watch) loop(ctx context.Context, events <-chan struct{}, scan func()) error {
	rescan := time.NewTicker(w.config.Rescan)
	defer rescan.Stop()
	quiet := time.NewTimer(w.config.Rescan)
	defer quiet.Stop()
	quiet.Stop()
	for scan(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			quiet.Reset(w.config.Debounce)
		case <-quiet.C:
			scan()
		case <-rescan.C: // also when events never pause
			scan()
		}
	}
}

// forward turns events into wake-ups until the watcher is closed.
func forward(notify *fsnotify.Watcher, events chan<- struct{}) {
	for {
		select {
		case _, ok := <-notify.Events: // any: hidden names too, which is how ConfigMaps are swapped
			if !ok {
				return
			}
		case _, ok := <-notify.Errors: // events were lost: look
			if !ok {
				return
			}
		}
		select {
		case events <- struct{}{}:
		default: // one is waiting already
		}
	}
}
