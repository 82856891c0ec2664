// SPDX-License-Identifier: Apache-2.0

package document

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"
)

// Change tells what a request did. Zero is unspecified.
type Change string

// The changes.
const (
	Created   Change = "created"   // there was no such policy in force
	Updated   Change = "updated"   // another version of it was in force
	Unchanged Change = "unchanged" // the document means what is in force already; no new version
	Deleted   Change = "deleted"
)

// ApplyRequest asks to put a document into force.
type ApplyRequest struct {
	Source          Source
	Author, Comment string // who and why, for the history; at most 256 and 4096 bytes
	ExpectedVersion int64  // refuse unless this is the newest version; 0: do not care
	DryRun          bool   // check everything, change nothing
	Origin          Origin // required
}

// ApplyResult tells what is in force now, or after a dry run what would be.
type ApplyResult struct {
	Version  Version // without its document
	Change   Change
	Warnings []Problem
}

// DeleteRequest asks to take a policy out of force.
type DeleteRequest struct {
	Name            string
	Author, Comment string // as in ApplyRequest
	ExpectedVersion int64  // as in ApplyRequest
	Origin          Origin // required
}

// RollbackRequest asks to put an older version into force again, as a new version.
type RollbackRequest struct {
	Name            string
	Version         int64  // 0: the newest that has a document and is older than the newest of all
	Author, Comment string // as in ApplyRequest
	ExpectedVersion int64  // as in ApplyRequest
}

// Apply puts a document into force, or refuses it and changes nothing. It waits for other changes and
// for the disk. Once the change is being stored, cancelling ctx does not stop it any more. Errors:
// ErrInvalid, ErrVersionConflict, ErrManagedByDir, ErrTooMany, ErrRefused, ErrStore, ErrNotPublished,
// and that of ctx.
func (c *Catalog) Apply(ctx context.Context, r ApplyRequest) (ApplyResult, error) {
	compiled, err := c.compile(r.Source)
	if err != nil {
		c.countError(r)
		return ApplyResult{}, err
	}
	return c.apply(ctx, r, compiled)
}

func (c *Catalog) apply(ctx context.Context, r ApplyRequest, compiled *Compiled) (ApplyResult, error) {
	c.change.Lock()
	defer c.change.Unlock()
	out, err := c.applyLocked(ctx, r, compiled)
	if err != nil {
		c.countError(r)
	}
	return out, err
}

func (c *Catalog) countError(r ApplyRequest) {
	if !r.DryRun && (r.Origin == OriginAPI || r.Origin == OriginDir) {
		c.metrics.errors.WithLabelValues(string(r.Origin)).Inc()
	}
}

// REQUIRES change.
func (c *Catalog) applyLocked(ctx context.Context, r ApplyRequest, compiled *Compiled) (ApplyResult, error) {
	if err := checkBy(r.Author, r.Comment, r.Origin); err != nil {
		return ApplyResult{}, err
	}
	head, err := c.headLocked(ctx, compiled.Name)
	if err != nil {
		return ApplyResult{}, err
	}
	if err := c.guard(head, compiled.Name, r.ExpectedVersion, r.Origin); err != nil {
		return ApplyResult{}, err
	}
	current := c.current()
	running := current.byName[compiled.Name]
	if running != nil && running.compiled.Hash == compiled.Hash && sameFile(running.head, r) {
		out := ApplyResult{Version: running.shown(), Change: Unchanged, Warnings: compiled.Warnings}
		if c.unpublished && !r.DryRun {
			return out, c.publishLocked(current.compiled())
		}
		return out, nil
	}
	if running == nil && len(current.names) >= c.config.MaxPolicies {
		return ApplyResult{}, fmt.Errorf("%w: %d policies are in force, which is the most allowed (max_policies): delete one before creating %q",
			ErrTooMany, len(current.names), compiled.Name)
	}
	v := newVersion(head, compiled, r)
	adopt(&v, compiled, head.Limiters, current.usedUIDs(v.Name))
	stored := v
	v.Document = ""
	added := &policy{head: v, compiled: compiled}
	out := ApplyResult{Version: added.shown(), Change: Created, Warnings: compiled.Warnings}
	if running != nil {
		out.Change = Updated
	}
	return out, c.commitLocked(ctx, commit{stored, out.Change, current.with(added), r.DryRun})
}

func newVersion(head Version, compiled *Compiled, r ApplyRequest) Version {
	return Version{
		Name: compiled.Name, Version: head.Version + 1, Hash: compiled.Hash,
		Document: string(r.Source.Text), Blueprint: compiled.Blueprint,
		Author: r.Author, Comment: r.Comment, Source: r.Origin, File: r.Source.File,
		State: StateActive, CreateTime: now(),
	}
}

// Delete takes a policy out of force and records that as a version. Errors: ErrNotFound when it is not
// in force, and those of Apply.
func (c *Catalog) Delete(ctx context.Context, r DeleteRequest) (Version, error) {
	c.change.Lock()
	defer c.change.Unlock()
	v, err := c.deleteLocked(ctx, r)
	if err != nil {
		c.countError(ApplyRequest{Origin: r.Origin})
	}
	return v, err
}

// REQUIRES change.
func (c *Catalog) deleteLocked(ctx context.Context, r DeleteRequest) (Version, error) {
	if err := checkBy(r.Author, r.Comment, r.Origin); err != nil {
		return Version{}, err
	}
	if err := checkName(r.Name); err != nil {
		return Version{}, err
	}
	head, err := c.headLocked(ctx, r.Name)
	if err != nil {
		return Version{}, err
	}
	if head.State != StateActive {
		return Version{}, notInForce(r.Name)
	}
	if err := c.guard(head, r.Name, r.ExpectedVersion, r.Origin); err != nil {
		return Version{}, err
	}
	// Hash, blueprint, file and limiters stay: they say what was deleted, and a policy that comes back
	// finds its accounts.
	v := head
	v.Version++
	v.Document, v.Components, v.Limiters = "", nil, slices.Clone(head.Limiters)
	v.Author, v.Comment, v.Source = r.Author, r.Comment, r.Origin
	v.State, v.CreateTime = StateDeleted, now()
	return v, c.commitLocked(ctx, commit{v, Deleted, c.current().without(r.Name), false})
}

// Rollback puts the document of an older version into force again, under a new version number. A
// deleted policy comes back. Errors: ErrNotFound when there is no such version, and those of Apply.
func (c *Catalog) Rollback(ctx context.Context, r RollbackRequest) (ApplyResult, error) {
	if r.Version < 0 {
		return ApplyResult{}, badArgument("version", "got %d, want 1 or more, or 0 for the version before the newest", r.Version)
	}
	if err := checkName(r.Name); err != nil {
		return ApplyResult{}, err
	}
	c.change.Lock()
	defer c.change.Unlock()
	out, err := c.rollbackLocked(ctx, r)
	if err != nil {
		c.countError(ApplyRequest{Origin: OriginAPI})
	}
	return out, err
}

// REQUIRES change.
func (c *Catalog) rollbackLocked(ctx context.Context, r RollbackRequest) (ApplyResult, error) {
	old, err := c.rollbackTarget(ctx, r)
	if err != nil {
		return ApplyResult{}, err
	}
	source := Source{Name: old.Name, File: old.File, Blueprint: old.Blueprint, Text: []byte(old.Document)}
	compiled, err := c.compile(source)
	if err != nil {
		return ApplyResult{}, fmt.Errorf("policy %q version %d cannot run in this release: %w", old.Name, old.Version, err)
	}
	if compiled.Name != r.Name {
		return ApplyResult{}, fmt.Errorf("policy %q version %d: its document names it %q: %w", old.Name, old.Version, compiled.Name, ErrRefused)
	}
	if r.Comment == "" {
		r.Comment = fmt.Sprintf("roll back to version %d", old.Version)
	}
	return c.applyLocked(ctx, ApplyRequest{
		Source: source, Author: r.Author, Comment: r.Comment,
		ExpectedVersion: r.ExpectedVersion, Origin: OriginAPI,
	}, compiled)
}

// rollbackTarget finds the version to return to, with its document.
func (c *Catalog) rollbackTarget(ctx context.Context, r RollbackRequest) (Version, error) {
	version := r.Version
	if version == 0 {
		newest, err := c.config.Store.List(ctx, r.Name, 0, c.config.KeptVersions)
		if err != nil {
			return Version{}, fmt.Errorf("%w: read the history of policy %q: %w", ErrStore, r.Name, err)
		}
		if len(newest) == 0 {
			return Version{}, notInForce(r.Name)
		}
		at := slices.IndexFunc(newest[1:], func(v Version) bool { return v.State != StateDeleted })
		if at < 0 {
			return Version{}, fmt.Errorf("policy %q has no older version to return to: %w", r.Name, ErrNotFound)
		}
		version = newest[1+at].Version
	}
	old, err := c.Get(ctx, r.Name, version)
	if err == nil && old.State == StateDeleted {
		err = badArgument("version", "version %d of policy %q records its deletion: choose one that has a document", version, r.Name)
	}
	return old, err
}

// headLocked is the newest version of a policy without its document, whether in force or deleted; its
// Version is 0 when there never was one. It makes sure that the catalog agrees with the store first.
// REQUIRES change.
func (c *Catalog) headLocked(ctx context.Context, name string) (Version, error) {
	if err := ctx.Err(); err != nil {
		return Version{}, err
	}
	if c.stale {
		if err := c.reloadLocked(ctx); err != nil {
			return Version{}, err
		}
		// Not fatal: the change asked for may be the one that repairs it.
		if err := c.publishLocked(c.current().compiled()); err != nil {
			c.log.Error("the stored policies could not be put into force", "error", err)
		}
	}
	if p := c.current().byName[name]; p != nil {
		return p.head, nil
	}
	head, err := c.config.Store.Get(ctx, name, 0)
	if errors.Is(err, ErrNotFound) {
		return Version{}, nil
	}
	if err != nil {
		return Version{}, fmt.Errorf("%w: read policy %q: %w", ErrStore, name, err)
	}
	return head, nil
}

// guard refuses a change that its author would not have wanted, had they known head.
func (c *Catalog) guard(head Version, name string, expected int64, origin Origin) error {
	if expected < 0 {
		return badArgument("expected_version", "got %d, want 1 or more, or 0 for any", expected)
	}
	if head.State == StateActive && head.Source == OriginDir && origin != OriginDir && !c.config.NoDirectory {
		return fmt.Errorf("policy %q is %w: change or remove the file %s", name, ErrManagedByDir, head.File)
	}
	if expected != 0 && expected != head.Version {
		return &ConflictError{Name: name, Expected: expected, Actual: head.Version}
	}
	return nil
}

// sameFile reports whether an unchanged document may stay under the version in force. A file of the
// policy directory may not when something else put the policy into force: who manages it has changed.
func sameFile(running Version, r ApplyRequest) bool {
	return r.Origin != OriginDir || (running.Source == OriginDir && running.File == r.Source.File)
}

// commit is one change, ready to be made.
type commit struct {
	version Version // with its document
	change  Change
	next    policies // in force afterwards
	dryRun  bool
}

// commitLocked checks, stores and publishes, in this order: what is not durable is never in force.
// REQUIRES change.
func (c *Catalog) commitLocked(ctx context.Context, m commit) error {
	v, set := m.version, m.next.compiled()
	if err := c.config.Publisher.Check(set); err != nil {
		return fmt.Errorf("policy %q cannot run together with the other policies: %w: %w", v.Name, ErrRefused, err)
	}
	if m.dryRun {
		return nil
	}
	// Without cancellation, because a commit that was cut short leaves it open whether it happened.
	err := c.config.Store.Append(context.WithoutCancel(ctx), v, c.config.KeptVersions)
	if err != nil {
		c.stale = true // somebody else wrote, or it is not known what happened: read again first
		if errors.Is(err, ErrVersionConflict) {
			return err
		}
		// Logged as well as returned: clients are told only that it failed, since the text names files.
		c.log.Error("a change of a policy could not be stored", "policy", v.Name, "version", v.Version, "error", err)
		return fmt.Errorf("%w: store version %d of policy %q: what ran before keeps running: %w", ErrStore, v.Version, v.Name, err)
	}
	c.setCurrent(m.next)
	c.metrics.changes.WithLabelValues(string(m.change)).Inc()
	c.log.Info("policy changed", "policy", v.Name, "version", v.Version, "change", string(m.change),
		"source", string(v.Source), "file", v.File, "author", v.Author, "comment", v.Comment)
	if err := c.publishLocked(set); err != nil {
		return fmt.Errorf("version %d of policy %q is stored but %w", v.Version, v.Name, err)
	}
	return nil
}

// now is the time of a change as every store can keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func blank(text []byte) bool { return len(bytes.TrimSpace(text)) == 0 }

// checkName bounds names for the store and for page tokens; what a name may look like is up to the
// Compiler.
func checkName(name string) error {
	const most = 256
	if name == "" || len(name) > most || !printable(name) {
		return badArgument("name", "got %.80q, want 1 to %d bytes of printable UTF-8", name, most)
	}
	return nil
}

// checkBy checks who, why and from where.
func checkBy(author, comment string, origin Origin) error {
	var problems []Problem
	for _, field := range []struct {
		path, text string
		most       int
	}{{"author", author, 256}, {"comment", comment, 4096}} {
		if len(field.text) > field.most || !utf8.ValidString(field.text) || bytes.ContainsRune([]byte(field.text), 0) {
			problems = append(problems, Problem{Path: field.path, Message: fmt.Sprintf(
				"got %d bytes starting %.40q, want at most %d bytes of UTF-8", len(field.text), field.text, field.most)})
		}
	}
	if origin != OriginAPI && origin != OriginDir {
		problems = append(problems, Problem{Path: "source", Message: fmt.Sprintf("got %q, want %q or %q", origin, OriginAPI, OriginDir)})
	}
	if len(problems) > 0 {
		return Invalid(problems...)
	}
	return nil
}

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
