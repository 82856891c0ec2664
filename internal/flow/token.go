// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/internal/cache"
	"github.com/sluice-project/sluice/internal/ledger"
	"github.com/sluice-project/sluice/internal/limit"
)

// TokenKeySize is the length of the key that seals flow tokens.
const TokenKeySize = 32

// ErrInvalidToken is returned for a token that was not sealed with this key, or was changed.
var ErrInvalidToken = errors.New("flow token was not issued by this server or cluster")

// A token is a 12-byte nonce and, encrypted and authenticated with AES-256-GCM, what End needs. The
// nonce doubles as the identity of the flow. It is four random bytes per process and a counter, so it
// repeats only if two processes with one key draw the same prefix and count alike; the counter starts
// at the time of day in order to make that rarer still.
//
// Version 2 added workloads, limiters that were passed without a charge, and flux meters; tokens of
// version 1 are still read. Version 3 is for flows that lead others who wait for their result; all others have
// version 2, so that servers which do not know it can end them.
const (
	tokenVersion     = 2
	tokenVersionLead = 3
	nonceSize        = 12
	maxTokenSize     = 64 << 10
)

type nonceSource struct {
	prefix [4]byte
	count  atomic.Uint64
}

func (n *nonceSource) init() {
	rand.Read(n.prefix[:]) // never fails: crypto/rand ends the process instead
	n.count.Store(uint64(time.Now().UnixNano()))
}

func newSealer(key []byte) (cipher.AEAD, error) {
	if len(key) != TokenKeySize {
		return nil, fmt.Errorf("flow: token key has %d bytes, want %d", len(key), TokenKeySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Charge flags in a token.
const (
	flagCarried = 1 << iota
	flagSlot
	flagWorkload // the workload follows
	flagEmpty    // there is nothing to give back: tokens, slot and key do not follow
)

// Meter flags in a token: the attribute, whether its value follows, and whether there is a label that has none.
const (
	maskAttribute = 3
	flagValue     = 4
	flagText      = 8
)

// Seal appends to dst the token with which any server of the cluster can end the flow, whose Flow may
// then be freed. Flows that hold nothing have a token too: their end is counted.
func (f *Flow) Seal(dst []byte) []byte {
	var plain [512]byte
	lead := cache.Lead(0)
	if f.lookup != nil {
		lead = f.lookup.lead
	}
	version := byte(tokenVersion)
	if lead != 0 {
		version = tokenVersionLead
	}
	p := append(plain[:0], version)
	p = binary.LittleEndian.AppendUint64(p, uint64(f.started))
	p = binary.LittleEndian.AppendUint64(p, uint64(f.Verdict.Waited))
	p = appendString(p, f.point.name)
	count := len(p)
	p = append(p, 0)
	for i := range f.charges {
		if c := &f.charges[i]; c.flags&chargeEmpty == 0 || c.limiter.queue != nil {
			p = appendCharge(p, c)
			if p[count]++; p[count] == math.MaxUint8 {
				break
			}
		}
	}
	p = f.appendReadings(p)
	if lead != 0 {
		p = binary.LittleEndian.AppendUint64(p, uint64(lead))
	}
	n := len(dst)
	dst = append(dst, f.engine.nonce.prefix[:]...)
	dst = binary.BigEndian.AppendUint64(dst, f.engine.nonce.count.Add(1))
	return f.engine.sealer.Seal(dst, dst[n:], p, nil)
}

func appendString(p []byte, s string) []byte {
	return append(append(p, byte(len(s))), s...) // names and keys are at most 255 bytes
}

func appendCharge(p []byte, c *charge) []byte {
	flags := byte(0)
	if c.flags&chargeCarried != 0 {
		flags |= flagCarried
	}
	if c.slot != 0 {
		flags |= flagSlot
	}
	if c.limiter.queue != nil {
		flags |= flagWorkload
	}
	if c.flags&chargeEmpty != 0 {
		flags |= flagEmpty
	}
	p = append(p, flags)
	p = binary.LittleEndian.AppendUint64(p, uint64(c.limiter.id))
	if flags&flagWorkload != 0 {
		p = binary.LittleEndian.AppendUint32(p, c.bin.id)
	}
	if flags&flagEmpty != 0 {
		return p
	}
	p = binary.LittleEndian.AppendUint64(p, math.Float64bits(c.tokens))
	if c.slot != 0 {
		p = binary.LittleEndian.AppendUint64(p, uint64(c.slot))
	}
	return appendString(p, c.key)
}

// appendReadings writes which flux meters select the flow, with the values of labels that they measure.
func (f *Flow) appendReadings(p []byte) []byte {
	count := len(p)
	p = append(p, 0)
	if f.noEnd {
		return p
	}
	f.eachGauge(func(g *gauge) {
		if p[count] == math.MaxUint8 {
			return
		}
		p[count]++
		flags, value := byte(g.what), 0.0
		if g.what == attributeLabel {
			var known, ok bool
			if value, known, ok = f.measured(g); ok {
				flags |= flagValue
			} else if known {
				flags |= flagText
			}
		}
		p = append(p, flags)
		p = binary.LittleEndian.AppendUint32(p, g.id)
		if flags&flagValue != 0 {
			p = binary.LittleEndian.AppendUint64(p, math.Float64bits(value))
		}
	})
	return p
}

// EndResult says what ending a flow did.
type EndResult uint8

// The results. Zero is none.
const (
	_            EndResult = iota
	Ended                  // slots are free, costs are settled
	AlreadyEnded           // it had been ended before; nothing changed
	Expired                // its slots had been taken as free before
)

// String is the stable code.
func (r EndResult) String() string {
	return [...]string{"", "ended", "already_ended", "expired"}[r]
}

// EndToken ends a flow by its token. The error is ErrInvalidToken.
func (e *Engine) EndToken(token []byte, o *Outcome) (EndResult, error) {
	t := openTokens.Get().(*openToken)
	defer t.free()
	if !e.open(token, t) {
		return 0, ErrInvalidToken
	}
	done := e.endedSet.add(t.id, flowEnded)
	if done&flowEnded != 0 {
		return AlreadyEnded, nil
	}
	// What was ended before this process started is not known any more. Slots tell for themselves; costs
	// of older flows are corrected upwards only, so that replaying a token cannot refill a bucket.
	if t.started < e.endedSet.since(limit.At(e.opened)) {
		o.dropRefunds(t.charges)
	}
	slots := false
	for i := range t.charges {
		c := &t.charges[i]
		if c.slot != 0 && done&flowReleased != 0 {
			c.flags |= chargeEmpty // whoever released it has given it back
		}
		slots = slots || c.slot != 0
	}
	h := holding{
		stats: t.stats, charges: t.charges, started: t.started, waited: t.waited, stripe: t.stripe(), lead: t.lead,
	}
	if len(t.read) > 0 {
		h.token = t
	}
	if !e.end(&h, o, &t.wakes) && slots {
		return Expired, nil
	}
	return Ended, nil
}

// ReleaseToken frees the slots that a flow holds, and nothing else: the flow can still be ended with EndToken,
// which then counts how it went. The result is Ended also if the flow holds no slots, and AlreadyEnded if it was
// released or ended before. The error is ErrInvalidToken.
func (e *Engine) ReleaseToken(token []byte) (EndResult, error) {
	t := openTokens.Get().(*openToken)
	defer t.free()
	if !e.open(token, t) {
		return 0, ErrInvalidToken
	}
	if e.endedSet.add(t.id, flowReleased) != 0 {
		return AlreadyEnded, nil
	}
	now := e.authority.Now()
	held := max(0, now.Sub(t.started)-t.waited)
	result := Ended
	for i := len(t.charges) - 1; i >= 0; i-- {
		if c := &t.charges[i]; c.slot != 0 && !c.limiter.settle(c, 0, false, held, now, &t.wakes) {
			result = Expired
		}
	}
	e.leave(t.lead, now, &t.wakes)
	t.wakes.Run()
	return result, nil
}

// openToken is what a token says, and room to work with it.
type openToken struct {
	id      [nonceSize]byte
	started limit.Instant
	waited  time.Duration
	stats   *pointStats
	charges []charge // of limiters that are still there
	read    []reading
	lead    cache.Lead // the flow computes a result that others may wait for
	inline  [inlineCharges]charge
	buf     [512]byte
	wakes   Wakes
}

// openTokens are reused: they escape to the heap.
var openTokens = sync.Pool{New: func() any { return new(openToken) }}

func (t *openToken) free() {
	clear(t.inline[:])
	t.stats, t.charges, t.read = nil, nil, nil
	openTokens.Put(t)
}

func (t *openToken) stripe() int { return int(t.id[nonceSize-1]) & (stripes - 1) }

// open reads a token. It returns false for one that is not ours.
func (e *Engine) open(token []byte, t *openToken) bool {
	if len(token) < nonceSize+1 || len(token) > maxTokenSize {
		return false
	}
	plain, err := e.sealer.Open(t.buf[:0], token[:nonceSize], token[nonceSize:], nil)
	if err != nil {
		return false
	}
	r := tokenReader{b: plain}
	version := r.byte()
	if version < 1 || version > tokenVersionLead {
		return false
	}
	t.id = [nonceSize]byte(token)
	t.started = limit.Instant(r.uint64())
	t.waited = time.Duration(r.uint64())
	snap := e.snapshot.Load()
	t.stats = e.pointFor(snap, r.string()).stats
	t.charges = t.inline[:0]
	for range r.byte() {
		if c, ok := e.readCharge(&r); ok {
			t.charges = append(t.charges, c)
		}
	}
	if version > 1 {
		t.read = readReadings(&r, snap)
	}
	if t.lead = 0; version == tokenVersionLead {
		t.lead = cache.Lead(r.uint64())
	}
	return !r.short
}

// dropRefunds makes charges keep their cost where the outcome would give tokens back.
func (o *Outcome) dropRefunds(charges []charge) {
	for i := range charges {
		if n, known := o.actual(&charges[i]); known && n < charges[i].tokens {
			charges[i].flags &^= chargeCarried
		}
	}
}

// readCharge returns false for a charge of a limiter that is gone, or is of another kind now.
func (e *Engine) readCharge(r *tokenReader) (charge, bool) {
	flags := r.byte()
	l := (*e.limiters.Load())[ledger.LimiterID(r.uint64())]
	c := charge{limiter: l}
	if l != nil {
		c.bin = l.own
	}
	if flags&flagWorkload != 0 {
		if id := r.uint32(); l != nil {
			c.bin = l.workloadByID(id)
		}
	}
	if flags&flagEmpty != 0 {
		c.flags = chargeEmpty
		return c, l != nil
	}
	c.tokens = math.Float64frombits(r.uint64())
	if flags&flagCarried != 0 {
		c.flags = chargeCarried
	}
	if flags&flagSlot != 0 {
		c.slot = ledger.SlotID(r.uint64())
	}
	c.key = r.string()
	return c, l != nil && l.kind.holdsSlots() == (c.slot != 0)
}

// readReadings skips flux meters that are gone or measure something else now.
func readReadings(r *tokenReader, snap *snapshot) (out []reading) {
	for range r.byte() {
		flags := r.byte()
		m := snap.byID[r.uint32()]
		v := reading{
			meter: m, what: attribute(flags & maskAttribute),
			ok: flags&flagValue != 0, known: flags&(flagValue|flagText) != 0,
		}
		if v.ok {
			v.value = math.Float64frombits(r.uint64())
		}
		if m != nil && attributeOf(m.Spec().Attribute) == v.what {
			out = append(out, v)
		}
	}
	return out
}

// tokenReader reads fields; after reading past the end, short is set and zeros come.
type tokenReader struct {
	b     []byte
	short bool
}

func (r *tokenReader) take(n int) []byte {
	if len(r.b) < n {
		r.short, r.b = true, nil
		return make([]byte, n)
	}
	head := r.b[:n]
	r.b = r.b[n:]
	return head
}

func (r *tokenReader) byte() byte     { return r.take(1)[0] }
func (r *tokenReader) uint64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *tokenReader) uint32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *tokenReader) string() string { return string(r.take(int(r.byte()))) }

// endedSet remembers which flows were released or ended by token, so that a second call changes nothing. It keeps
// two generations and forgets the older one when the newer is full: memory is bounded, and since tells from
// which start time on it knows everything.
type endedSet struct {
	mu        sync.Mutex
	now, then map[[nonceSize]byte]flowState
	forgotAt  limit.Instant // flows started before may have been forgotten
	turnedAt  time.Time
}

// flowState is what was done to a flow by token.
type flowState uint8

const (
	flowReleased flowState = 1 << iota // its slots were freed
	flowEnded
)

// endedGeneration is the size of a generation: about 40 MB for both when full.
const endedGeneration = 1 << 19

// add remembers what is done to a flow and returns what was done to it before.
func (s *endedSet) add(id [nonceSize]byte, state flowState) (before flowState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before, ok := s.now[id]; ok {
		s.now[id] = before | state
		return before
	}
	if before, ok := s.then[id]; ok {
		s.then[id] = before | state
		return before
	}
	if len(s.now) >= endedGeneration {
		if s.then != nil {
			s.forgotAt = limit.At(s.turnedAt)
		}
		s.now, s.then, s.turnedAt = nil, s.now, time.Now()
	}
	if s.now == nil {
		s.now = make(map[[nonceSize]byte]flowState)
	}
	s.now[id] = state
	return 0
}

func (s *endedSet) since(opened limit.Instant) limit.Instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(opened, s.forgotAt)
}
