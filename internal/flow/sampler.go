// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/sluice-project/sluice/internal/limit"
	"github.com/sluice-project/sluice/internal/sched"
)

// allHashes is the threshold that every hash is below.
const allHashes = 1 << 32

func newSample(ramp bool, pass []string) *SampleSpec {
	s := &SampleSpec{Ramp: ramp}
	s.setPass(pass)
	return s
}

// set makes p percent of the flows pass. It must not be called after the spec was published.
func (s *SampleSpec) set(p float64) {
	if !(p > 0) {
		p = 0
	}
	s.Percentage = min(p, 100)
	s.threshold = uint64(math.Round(s.Percentage / 100 * allHashes))
}

func (s *SampleSpec) setPass(values []string) {
	s.PassValues = slices.Clone(values)
	s.pass = nil
	for _, v := range values {
		if v == "" {
			continue // nobody's session
		}
		if s.pass == nil {
			s.pass = make(map[string]bool, len(values))
		}
		s.pass[v] = true
	}
}

// compiled returns the spec with what New does not ask callers for.
func (s *SampleSpec) compiled() *SampleSpec {
	c := *s
	c.set(s.Percentage)
	c.setPass(s.PassValues)
	return &c
}

// admits decides for a session: the same way every time, and for a larger percentage whenever for a smaller
// one. A flow without a session is decided by chance.
func (s *SampleSpec) admits(session string) bool {
	switch s.threshold {
	case 0:
		return false
	case allHashes:
		return true
	}
	if session == "" {
		return uint64(rand.Uint32()) < s.threshold
	}
	return uint64(fnv32a(session)) < s.threshold
}

// fnv32a is the 32-bit FNV-1a hash of a string (G. Fowler, L. C. Noll, K.-P. Vo), without the allocation
// that package hash/fnv needs.
func fnv32a(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}

// sampleAt decides a sampler or load ramp. While its percentage is unknown, those in ramp mode admit
// nobody and the others everybody; values that always pass do so then, too.
func (f *Flow) sampleAt(st *stage, spec *LimiterSpec, now limit.Instant, wakes *sched.Wakes) stageResult {
	session, in := "", spec.Sample
	if st.key != noSlot {
		session = f.values[st.key].Text
	}
	switch {
	case session != "" && in.pass[session]:
		f.passFree(st, 0, "pass_through_value")
		return stagePassed
	case spec.PassThrough && !spec.ramp():
		f.passFree(st, 0, "pass_through")
		return stagePassed
	case !spec.PassThrough && in.admits(session):
		f.charges = append(f.charges, charge{limiter: st.limiter, bin: st.limiter.own, flags: chargeEmpty})
		f.stageTokens = 0
		if f.explain {
			f.Verdict.Decisions = append(f.Verdict.Decisions, f.decision(st, shorten(session), true, 0, 0, ""))
		}
		return stagePassed
	}
	f.stageTokens = 0
	f.Verdict.Key = shorten(session)
	f.deny(NotSampled, st, now, wakes)
	return stageDenied
}
