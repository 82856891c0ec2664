// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Bounds of a page.
const (
	DefaultPageSize = 100
	MaxPageSize     = 1000
)

// Filter chooses alerts. The zero value chooses the newest of all.
type Filter struct {
	Policy string // only those of this policy; empty: all
	State  State  // only those in this state; empty: both
	Size   int    // at most this many; 0: DefaultPageSize; more than MaxPageSize: MaxPageSize
	Token  string // Page.Next of the page before; empty: the first page
}

// Page is a part of a list, newest first. The caller owns it.
type Page struct {
	Alerts []Alert
	Next   string // Filter.Token of the next page; empty: this is the last
}

// ArgumentError says what is wrong with an argument of List.
type ArgumentError struct {
	Field   string // as in the API: state, page_size, page_token
	Problem string
}

// Error implements error.
func (e *ArgumentError) Error() string { return e.Field + ": " + e.Problem }

// List returns one page of alerts by descending ID, that is, by descending start. Errors are of type
// *ArgumentError.
func (c *Center) List(f Filter) (Page, error) {
	before, err := f.check()
	if err != nil {
		return Page{}, err
	}
	size := min(f.Size, MaxPageSize)
	if size == 0 {
		size = DefaultPageSize
	}
	c.mu.Lock()
	chosen := c.matching(f, before)
	c.mu.Unlock()
	slices.SortFunc(chosen, func(a, b match) int { return cmp.Compare(b.id, a.id) })
	page := Page{}
	if len(chosen) > size {
		chosen = chosen[:size]
		page.Next = token(chosen[size-1].id)
	}
	c.mu.Lock()
	for _, m := range chosen {
		page.Alerts = append(page.Alerts, m.record.snapshot())
	}
	c.mu.Unlock()
	for i := range page.Alerts {
		a := &page.Alerts[i]
		a.Labels, a.Channels = maps.Clone(a.Labels), slices.Clone(a.Channels)
	}
	return page, nil
}

type match struct {
	id     int64
	record *record
}

// matching returns alerts in no particular order. The caller holds mu.
func (c *Center) matching(f Filter, before int64) []match {
	var out []match
	add := func(r *record) {
		if (f.Policy == "" || f.Policy == r.alert.Policy) && (before == 0 || r.alert.ID < before) {
			out = append(out, match{r.alert.ID, r})
		}
	}
	if f.State != Resolved {
		for _, r := range c.due {
			add(r)
		}
	}
	if f.State != Firing {
		for e := c.resolved.Front(); e != nil; e = e.Next() {
			add(e.Value.(*record))
		}
	}
	return out
}

// check returns the ID of the token; 0 for none.
func (f Filter) check() (before int64, err error) {
	switch f.State {
	case "", Firing, Resolved:
	default:
		return 0, &ArgumentError{"state", fmt.Sprintf("got %.40q, want %s, %s or nothing", f.State, Firing, Resolved)}
	}
	if f.Size < 0 {
		return 0, &ArgumentError{"page_size", fmt.Sprintf("got %d, want 0 (the server's choice) to %d", f.Size, MaxPageSize)}
	}
	if f.Token == "" {
		return 0, nil
	}
	text, err := base64.RawURLEncoding.DecodeString(f.Token)
	if err == nil {
		before, err = strconv.ParseInt(string(text), 10, 64)
	}
	if err != nil || before < 1 || token(before) != f.Token {
		return 0, &ArgumentError{"page_token", fmt.Sprintf(
			"%.40q is not a token of this list: pass next_page_token of the page before, or nothing for the first page", f.Token)}
	}
	return before, nil
}

// token is encoded only so that nobody mistakes it for something to build by hand.
func token(id int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(id, 10)))
}
