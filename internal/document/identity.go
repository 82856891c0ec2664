// SPDX-License-Identifier: Apache-2.0

package document

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// assignIdentities gives every limiter of a new version its UID: that of an identical limiter of the
// version before, in order; else that of the limiter which had the same component id, kind and key, so
// that an edited limiter keeps its counts; else a fresh one. Identical limiters go first over the whole
// document, because inserting a component shifts the ids of all that follow. Afterwards all UIDs differ
// from each other, from 0 and from those in used, which other policies hold. The result depends on the
// arguments only, so a restart assigns the same.
func assignIdentities(v Version, previous []LimiterRef, used map[uint64]bool) []LimiterRef {
	out := slices.Clone(v.Limiters)
	for i := range out {
		out[i].UID = 0
	}
	taken := make(map[uint64]bool, len(out))
	free := func(uid uint64) bool { return uid != 0 && !used[uid] && !taken[uid] }

	inherit(out, previous, free, taken, func(l LimiterRef) (LimiterRef, bool) {
		return LimiterRef{ContentHash: l.ContentHash, Kind: l.Kind, Key: l.Key}, l.ContentHash != ""
	})
	inherit(out, previous, free, taken, func(l LimiterRef) (LimiterRef, bool) {
		return LimiterRef{Component: l.Component, Kind: l.Kind, Key: l.Key}, true
	})
	for i := range out {
		for salt := uint64(0); out[i].UID == 0; salt++ {
			if uid := freshUID(v.Name, v.Version, out[i].Component, salt); free(uid) {
				out[i].UID, taken[uid] = uid, true
			}
		}
	}
	return out
}

// inherit hands the UIDs of previous to those limiters of next without one whose likeness is equal, in
// order. A likeness that is not ok equals none.
func inherit(next, previous []LimiterRef, free func(uint64) bool, taken map[uint64]bool,
	likeness func(LimiterRef) (LimiterRef, bool),
) {
	waiting := make(map[LimiterRef][]uint64, len(previous))
	for _, old := range previous {
		if like, ok := likeness(old); ok && free(old.UID) {
			waiting[like] = append(waiting[like], old.UID)
		}
	}
	for i := range next {
		like, ok := likeness(next[i])
		if !ok || next[i].UID != 0 {
			continue
		}
		for uids := waiting[like]; len(uids) > 0 && next[i].UID == 0; {
			if free(uids[0]) { // a damaged history may hold the same UID twice
				next[i].UID, taken[uids[0]] = uids[0], true
			}
			uids = uids[1:]
			waiting[like] = uids
		}
	}
}

// freshUID hashes what makes a new limiter unique. Names hold no zero byte (see checkName), so that
// the fields cannot run into each other. salt is counted up until the hash is free.
func freshUID(policy string, version int64, component string, salt uint64) uint64 {
	h := fnv.New64a()
	b := append([]byte(policy), 0)
	b = append(b, component...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	b = binary.BigEndian.AppendUint64(b, salt)
	_, _ = h.Write(b) // never fails
	return h.Sum64()
}
