// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Get reads one version of a policy with its document. Version 0 is the one in force; if the policy is
// not in force, or has no such version, the error is ErrNotFound.
func (c *Catalog) Get(ctx context.Context, name string, version int64) (Version, error) {
	if version < 0 {
		return Version{}, badArgument("version", "got %d, want 1 or more, or 0 for the version in force", version)
	}
	if err := checkName(name); err != nil {
		return Version{}, err
	}
	inForce := c.current().byName[name]
	if version == 0 {
		if inForce == nil {
			return Version{}, notInForce(name)
		}
		version = inForce.head.Version
	}
	v, err := c.config.Store.Get(ctx, name, version)
	if errors.Is(err, ErrNotFound) {
		return Version{}, fmt.Errorf("policy %q has no version %d: %w: policy history lists what is kept", name, version, ErrNotFound)
	}
	if err != nil {
		return Version{}, fmt.Errorf("%w: read policy %q version %d: %w", ErrStore, name, version, err)
	}
	if inForce != nil && inForce.head.Version == version {
		v.Components = slices.Clone(inForce.compiled.Components)
	}
	return v, nil
}

// List reads one page of the policies in force, by name, without documents.
func (c *Catalog) List(_ context.Context, page PageRequest) (Page, error) {
	size, err := page.size()
	if err != nil {
		return Page{}, err
	}
	current, start := c.current(), 0
	if page.Token != "" {
		last, err := parseNameToken(page.Token)
		if err != nil {
			return Page{}, err
		}
		at, found := slices.BinarySearch(current.names, last)
		start = at
		if found {
			start++
		}
	}
	end := min(start+size, len(current.names))
	out := Page{Versions: make([]Version, 0, end-start)}
	for _, name := range current.names[start:end] {
		out.Versions = append(out.Versions, current.byName[name].shown())
	}
	if end < len(current.names) {
		out.Next = nameToken(current.names[end-1])
	}
	return out, nil
}

// History reads one page of the versions of a policy, newest first, without documents. It works for
// deleted policies too. A name that never was a policy is ErrNotFound.
func (c *Catalog) History(ctx context.Context, name string, page PageRequest) (Page, error) {
	size, err := page.size()
	if err != nil {
		return Page{}, err
	}
	if err := checkName(name); err != nil {
		return Page{}, err
	}
	before, err := parseVersionToken(page.Token)
	if err != nil {
		return Page{}, err
	}
	versions, err := c.config.Store.List(ctx, name, before, size+1)
	if err != nil {
		return Page{}, fmt.Errorf("%w: read the history of policy %q: %w", ErrStore, name, err)
	}
	if len(versions) == 0 && before == 0 {
		return Page{}, fmt.Errorf("policy %q has no history: %w", name, ErrNotFound)
	}
	out := Page{Versions: versions}
	if len(versions) > size {
		out.Versions = versions[:size]
		out.Next = versionToken(versions[size-1].Version)
	}
	return out, nil
}

// shown is a version that the caller may change.
func (p *policy) shown() Version {
	v := p.head
	v.Limiters = slices.Clone(v.Limiters)
	v.Components = slices.Clone(v.Components)
	return v
}

func notInForce(name string) error {
	return fmt.Errorf("no policy %q is in force: %w", name, ErrNotFound)
}
