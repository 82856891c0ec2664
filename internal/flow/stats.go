// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// pointStats counts the flows of one control point, across snapshots.
type pointStats struct {
	name      string
	bare      *controlPoint // without stages, for when no policy names it
	hot       []pointCounts // by stripe
	unmatched atomic.Uint64
	denied    [len(reasonNames)]atomic.Uint64
	waiting   atomic.Int64
	failed    atomic.Uint64 // ended with an error
	seen      pointSeen
	rate      pointRate // guarded by Engine.rates
}

// pointCounts counts what happens to every flow; see passCounts.
type pointCounts struct {
	admitted atomic.Uint64
	latency  histogram
	_        [64]byte
}

func newPointStats(name string) *pointStats {
	s := &pointStats{name: name, hot: make([]pointCounts, stripes)}
	s.bare = &controlPoint{name: name, stats: s}
	return s
}

func (s *pointStats) ended(stripe int, failed bool, d time.Duration) {
	if failed {
		s.failed.Add(1)
	}
	s.hot[stripe].latency.observe(d)
}

func (s *pointStats) admitted() (n uint64) {
	for i := range s.hot {
		n += s.hot[i].admitted.Load()
	}
	return n
}

func (s *pointStats) deniedTotal() (n uint64) {
	for i := range s.denied {
		n += s.denied[i].Load()
	}
	return n
}

// latencyBounds are the upper bounds of the histogram of work durations: from a cache hit to a long
// language-model answer.
var latencyBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	30 * time.Second, time.Minute, 2 * time.Minute,
}

// histogram counts durations. Observing is two atomic additions.
type histogram struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	nanos   atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.nanos.Add(int64(d))
}

// maxKey bounds account keys: longer label values are replaced by their beginning and a hash.
const maxKey = 128

func shorten(s string) string {
	if len(s) <= maxKey {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:maxKey/2], "") + "#" + hex.EncodeToString(sum[:16])
}

// parseNumber reads a number from a label. Small whole numbers, the usual case, take a short cut.
func parseNumber(s string) (float64, bool) {
	if len(s) == 0 || len(s) > 64 {
		return 0, false
	}
	if len(s) <= 9 {
		n := 0
		for i := range len(s) {
			c := s[i] - '0'
			if c > 9 {
				n = -1
				break
			}
			n = n*10 + int(c)
		}
		if n >= 0 {
			return float64(n), true
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil && !isRange(err) {
		return 0, false
	}
	return n, true
}

// isRange tells a number that is too large (it parses as ±Inf and is refused later) from no number.
func isRange(err error) bool {
	return errors.Is(err, strconv.ErrRange)
}
