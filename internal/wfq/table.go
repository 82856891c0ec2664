// SPDX-License-Identifier: Apache-2.0

package wfq

// table finds nodes by the hash of their key: open addressing with linear probing, 8 bytes an entry, of
// which the upper half is the hash and the lower half 1 + the index. A map would hash the key once more
// to delete it, when the key has long left the cache.
type table struct {
	entries []uint64 // hash<<32 | 1+index; 0: empty
	count   int
}

func newTable() table { return table{entries: make([]uint64, 16)} }

func (t *table) home(e uint64) int { return int(e>>32) & (len(t.entries) - 1) }

func (t *table) next(at int) int { return (at + 1) & (len(t.entries) - 1) }

func (t *table) insert(hash uint32, node int32) {
	if (t.count+1)*4 > len(t.entries)*3 {
		old := t.entries
		t.entries = make([]uint64, 2*len(old))
		for _, e := range old {
			if e != 0 {
				t.put(e)
			}
		}
	}
	t.put(uint64(hash)<<32 | uint64(node+1))
	t.count++
}

func (t *table) put(e uint64) {
	at := t.home(e)
	for t.entries[at] != 0 {
		at = t.next(at)
	}
	t.entries[at] = e
}

// remove takes out a node that is in the table and closes the gap, so that no tombstones are needed.
func (t *table) remove(hash uint32, node int32) {
	e := uint64(hash)<<32 | uint64(node+1)
	at := t.home(e)
	for t.entries[at] != e {
		at = t.next(at)
	}
	mask := len(t.entries) - 1
	for i := t.next(at); t.entries[i] != 0; i = t.next(i) {
		if home := t.home(t.entries[i]); (i-home)&mask >= (i-at)&mask {
			t.entries[at] = t.entries[i]
			at = i
		}
	}
	t.entries[at] = 0
	t.count--
}
