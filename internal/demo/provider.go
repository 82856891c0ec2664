// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// never is the wait for something that time alone does not bring.
const never = time.Duration(1<<63 - 1)

// quotaLimits is what a provider allows one API key per Minute.
type quotaLimits struct {
	// Requests and Tokens per Minute. More than 0.
	Requests, Tokens float64
	// Minute is how long a minute of the provider takes by the clock; the time scale of a demo. More than 0.
	Minute time.Duration
}

// provider keeps the quota of API keys the way hosted models do: two token buckets per key, one counting
// requests and one counting tokens, that start full and fill continuously up to one minute's worth. A
// request is charged what it may use (prompt plus the most it asks for) when it arrives, and is given the
// difference to what it really used when it is done. A refused request is not charged. All methods may be
// called concurrently.
type provider struct {
	limits quotaLimits

	mu   sync.Mutex
	keys map[string]*quotaState
}

type quotaState struct {
	requests, tokens float64
	at               time.Time
	taken            []time.Time
	refused          []refusal
}

// refusal is one answer of 429.
type refusal struct {
	at   time.Time
	kind string // of the limit: "requests" or "tokens"
}

func newProvider(l quotaLimits) (*provider, error) {
	if !(l.Requests > 0) || !(l.Tokens > 0) || l.Minute <= 0 {
		return nil, fmt.Errorf("demo: provider limits %+v: want everything over 0", l)
	}
	return &provider{limits: l, keys: map[string]*quotaState{}}, nil
}

// shortage says what a refused request was short of.
type shortage struct {
	// kind is "requests" or "tokens".
	kind string
	// limit per minute, what was left and what was asked for.
	limit, left, want float64
	// wait is when there is enough again; never when the request exceeds the limit itself.
	wait time.Duration
}

func (s *shortage) message(model string) string {
	unit := map[string]string{"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}[s.kind]
	advice := fmt.Sprintf("Please try again in %s.", s.wait.Round(time.Millisecond))
	if s.wait == never {
		advice = "The request is larger than the limit; make it smaller."
	}
	return fmt.Sprintf("Rate limit reached for %s on %s: Limit %.0f, Used %.0f, Requested %.0f. %s",
		model, unit, s.limit, s.limit-s.left, s.want, advice)
}

// maxKeys bounds the keys a provider remembers; the demos use one per phase.
const maxKeys = 1024

// take charges one request of that many tokens, or tells what it is short of and charges nothing.
func (p *provider) take(key string, tokens int) *shortage {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	k := p.keys[key]
	if k == nil {
		if len(p.keys) >= maxKeys {
			clear(p.keys)
		}
		k = &quotaState{requests: p.limits.Requests, tokens: p.limits.Tokens, at: now}
		p.keys[key] = k
	}
	p.fillLocked(k, now)
	short := p.short("requests", p.limits.Requests, k.requests, 1)
	if short == nil {
		short = p.short("tokens", p.limits.Tokens, k.tokens, float64(tokens))
	}
	if short != nil {
		k.refused = appendBounded(k.refused, refusal{now, short.kind})
		return short
	}
	k.requests--
	k.tokens -= float64(tokens)
	k.taken = appendBounded(k.taken, now)
	return nil
}

// settle gives back tokens that a request was charged and did not use.
func (p *provider) settle(key string, unused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.keys[key]; k != nil {
		p.fillLocked(k, time.Now())
		k.tokens = min(k.tokens+float64(unused), p.limits.Tokens)
	}
}

// log returns when requests of a key were accepted and refused.
func (p *provider) log(key string) (taken []time.Time, refused []refusal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k := p.keys[key]; k != nil {
		return slices.Clone(k.taken), slices.Clone(k.refused)
	}
	return nil, nil
}

func (p *provider) fillLocked(k *quotaState, now time.Time) {
	minutes := max(0, now.Sub(k.at).Seconds()) / p.limits.Minute.Seconds()
	k.requests = min(k.requests+minutes*p.limits.Requests, p.limits.Requests)
	k.tokens = min(k.tokens+minutes*p.limits.Tokens, p.limits.Tokens)
	k.at = now
}

// slack forgives the rounding of float64, so that a caller who waits as long as it was told is served.
const slack = 1e-6

func (p *provider) short(kind string, limit, left, want float64) *shortage {
	if want <= left+slack {
		return nil
	}
	s := &shortage{kind: kind, limit: limit, left: left, want: want, wait: never}
	if want <= limit {
		s.wait = time.Duration((want - left) / limit * float64(p.limits.Minute))
	}
	return s
}

func appendBounded[T any](log []T, entry T) []T {
	if len(log) >= maxSteps {
		return log
	}
	return append(log, entry)
}
