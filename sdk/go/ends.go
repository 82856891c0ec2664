// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"slices"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

const (
	// maxEnds bounds the reports that wait for a server that is away. Each holds a token of some tens of
	// bytes. Past the bound the oldest is dropped: its slot has the least time left until the limiter's
	// max_inflight_duration frees it anyway.
	maxEnds = 65_536

	// maxUnconfirmed bounds the messages with Ends whose arrival the server has not confirmed yet. Past
	// it the oldest is taken as delivered.
	maxUnconfirmed = 64
)

// endQueue holds Ends until they are delivered. It is not safe for concurrent use.
type endQueue struct {
	items   []*flowv1.EndRequest // oldest first
	head    int                  // items before it are gone
	dropped uint64
}

func (q *endQueue) len() int { return len(q.items) - q.head }

// push adds the newest End, and drops the oldest when there are too many.
func (q *endQueue) push(end *flowv1.EndRequest) {
	if q.len() >= maxEnds {
		q.items[q.head] = nil
		q.head++
		q.dropped++
	}
	if q.head > 1024 && q.head > len(q.items)/2 {
		q.items = slices.Delete(q.items, 0, q.head)
		q.head = 0
	}
	q.items = append(q.items, end)
}

// pop removes up to n of the oldest Ends. The slice is the caller's.
func (q *endQueue) pop(n int) []*flowv1.EndRequest {
	n = min(n, q.len())
	if n == 0 {
		return nil
	}
	out := slices.Clone(q.items[q.head : q.head+n])
	clear(q.items[q.head : q.head+n])
	q.head += n
	if q.len() == 0 {
		q.items, q.head = q.items[:0], 0
	}
	return out
}

// requeue puts Ends that were not delivered back in front, dropping the oldest of them that do not fit.
func (q *endQueue) requeue(ends []*flowv1.EndRequest) {
	if over := len(ends) + q.len() - maxEnds; over > 0 {
		q.dropped += uint64(over)
		ends = ends[over:]
	}
	q.items = append(slices.Clone(ends), q.items[q.head:]...)
	q.head = 0
}

// unconfirmed is one message of Ends; the answer to its last End confirms the message.
type unconfirmed struct {
	id   uint64
	ends []*flowv1.EndRequest
}
