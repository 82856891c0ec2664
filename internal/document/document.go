// SPDX-License-Identifier: Apache-2.0

// Package document keeps the policy documents in force and their versions.
//
// A Catalog is the one place where a policy is applied, updated, deleted or rolled back. It compiles a
// document, decides which accounts its limiters keep, has a Store make the change durable and only then
// hands the whole set of policies to a Publisher. A document that is refused at any of these steps
// leaves the running version alone. A Watch feeds the catalog from a directory of files.
//
// The package knows neither the policy language nor SQL: a Compiler, a Publisher and a Store are
// connected to it from outside.
package document

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"
)

// Source is a document as somebody wrote it. The zero value is refused as empty.
type Source struct {
	Name      string // for a document that does not carry its name
	File      string // where it was read, for messages; may be empty
	Blueprint string // for a values file that does not name its blueprint
	Text      []byte // YAML or JSON
}

// Component is one component of a compiled policy, as shown to people.
type Component struct {
	ID            string // for example "root.0"
	Kind          string // for example "rate_limiter"
	Status        string // "running", or why it is not
	ControlPoints []string
}

// LimiterRef names one stateful component of a policy, so that it keeps its accounts when the document
// around it is edited. A Compiler fills everything but UID; the Catalog assigns UID.
type LimiterRef struct {
	Component   string // id of the component, for example "root.0"
	Kind        string // for example "rate_limiter"; accounts never move between kinds
	Key         string // the label that divides its accounts (limit_by_label_key); empty: one account
	ContentHash string // of everything the component does, whatever its id; empty: never identical
	UID         uint64 // names its accounts in the ledger; 0: not assigned yet
}

// Compiled is a policy ready to run. A Compiler returns a new one from every call; once it was given to
// a Publisher nobody changes it any more.
type Compiled struct {
	Name       string
	Version    int64  // set by the Catalog; 0 before
	Hash       string // equal for documents that mean the same
	Blueprint  string // the blueprint it was rendered by; empty for a plain policy
	Components []Component
	Limiters   []LimiterRef
	Warnings   []Problem
	Value      any // the policy itself, opaque to this package
}

// Problem is one mistake in a document, or one thing that looks wrong.
type Problem struct {
	File    string // empty when unknown
	Line    int    // from 1; 0: the document has no such place
	Column  int    // from 1; 0: unknown
	Path    string // of the field; empty: the whole document
	Message string // what is wrong, what was expected, what to do
	Excerpt string // the line with a caret under the place; may be empty
	Warning bool   // allowed, but looks wrong
}

// String is the problem on one line, without the excerpt: "file:line:column: path: message".
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File + ":")
	}
	if p.Line > 0 {
		fmt.Fprintf(&b, "%d:", p.Line)
		if p.Column > 0 {
			fmt.Fprintf(&b, "%d:", p.Column)
		}
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// A Compiler turns a document into a policy. Compile is a function of its argument and may be called
// from several goroutines. A document with mistakes is an *InvalidError that lists all of them; any
// other error is treated as one mistake without a place.
type Compiler interface {
	Compile(Source) (*Compiled, error)
}

// A Publisher puts policies into force. For every change the Catalog calls Check with the whole set,
// ordered by name; if that is accepted and the change is stored, it calls Publish with the same set.
// Calls never overlap. Publish should fail only for reasons Check could not see. Neither may change the
// set or keep the slice; the policies in it may be kept.
type Publisher interface {
	Check(set []*Compiled) error
	Publish(set []*Compiled) error
}

// Origin tells where a version came from. Zero is unspecified and refused.
type Origin string

// The origins.
const (
	OriginAPI Origin = "api" // somebody called the API
	OriginDir Origin = "dir" // a file of the policy directory
)

// State tells what became of a version. Zero is unspecified and never stored.
type State string

// The states.
const (
	StateActive     State = "active"     // in force; at most one version of a policy
	StateSuperseded State = "superseded" // was in force
	StateDeleted    State = "deleted"    // this version took the policy out of force; it has no document
)

// Version is one entry of the history of a policy.
type Version struct {
	Name       string
	Version    int64  // counts up from 1 with every change of the policy, deletion included
	Hash       string // Compiled.Hash; that of the policy removed, in a deletion
	Document   string // as it was given; empty in a deletion and in lists
	Blueprint  string // as Compiled.Blueprint
	Author     string // who
	Comment    string // why
	Source     Origin
	File       string // as Source.File
	State      State
	CreateTime time.Time // UTC, whole microseconds
	Limiters   []LimiterRef

	// Components is not stored: it is known of policies in force and of dry runs, else nil.
	Components []Component
}

// Store keeps versions durably. All methods may be called concurrently. A version reads back exactly
// as appended, apart from State and Components.
type Store interface {
	// Append adds the newest version of a policy, in state active or deleted, in one step that either
	// happens whole or not at all: v.Version-1 must be the newest stored (0: none), else the error is
	// ErrVersionConflict and nothing changed; the active version becomes superseded; of all versions
	// the newest keep (at least 1) remain. After any other error the change may or may not have
	// happened; ask again.
	Append(ctx context.Context, v Version, keep int) error
	// Active reads every version in force with its document, by name. It ends at the first error.
	Active(ctx context.Context) iter.Seq2[Version, error]
	// Get reads one version with its document; version 0 is the newest, which may be a deletion. If
	// there is none the error is ErrNotFound.
	Get(ctx context.Context, name string, version int64) (Version, error)
	// List reads at most limit versions older than before (0: from the newest), newest first, without
	// documents.
	List(ctx context.Context, name string, before int64, limit int) ([]Version, error)
	// Close waits for calls under way; later calls fail.
	Close() error
}
