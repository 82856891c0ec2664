// SPDX-License-Identifier: Apache-2.0

package document

import (
	"errors"
	"fmt"
	"strings"
)

// Errors to branch on with errors.Is. The text of every error that wraps one of them may be shown to
// the caller, except behind ErrStore, whose text names files of the server.
var (
	// ErrInvalid: a document or another argument has mistakes; it is always an *InvalidError.
	ErrInvalid = errors.New("invalid")
	// ErrNotFound: there is no such policy or version.
	ErrNotFound = errors.New("not found")
	// ErrVersionConflict: somebody else changed the policy first; it is always a *ConflictError.
	ErrVersionConflict = errors.New("version conflict")
	// ErrManagedByDir: the policy comes from a file of the policy directory and cannot be changed by
	// the API.
	ErrManagedByDir = errors.New("managed by the policy directory")
	// ErrTooMany: as many policies are in force as are allowed.
	ErrTooMany = errors.New("too many policies")
	// ErrRefused: the document has no mistakes by itself but cannot run together with the others.
	ErrRefused = errors.New("refused")
	// ErrStore: the change could not be made durable, so it is not in force.
	ErrStore = errors.New("policy store")
	// ErrNotPublished: the change is stored but could not be put into force.
	ErrNotPublished = errors.New("not put into force")
)

// InvalidError lists every mistake of a document. It is also ErrInvalid.
type InvalidError struct {
	Problems []Problem // at least one
	Cause    error     // what the compiler answered; may be nil
}

// Invalid is the error for mistakes in a document.
func Invalid(problems ...Problem) *InvalidError { return &InvalidError{Problems: problems} }

// Error lists the problems, one on each line.
func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Is reports whether target is ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

// Unwrap is what the compiler answered.
func (e *InvalidError) Unwrap() error { return e.Cause }

// ConflictError tells which version was expected and which is there. It is also ErrVersionConflict.
type ConflictError struct {
	Name     string
	Expected int64
	Actual   int64 // the newest version; 0: there is none
}

// Error names both versions.
func (e *ConflictError) Error() string {
	is := fmt.Sprintf("is at version %d", e.Actual)
	if e.Actual == 0 {
		is = "does not exist"
	}
	return fmt.Sprintf("policy %q %s, not at version %d as expected: read it again and repeat the change if it still applies",
		e.Name, is, e.Expected)
}

// Is reports whether target is ErrVersionConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrVersionConflict }

// asInvalid makes an *InvalidError of whatever a compiler answered and fills in the file.
func asInvalid(file string, err error) *InvalidError {
	invalid, ok := errors.AsType[*InvalidError](err)
	if !ok || len(invalid.Problems) == 0 {
		invalid = &InvalidError{Problems: []Problem{{Message: err.Error()}}}
	}
	out := &InvalidError{Cause: err}
	for _, p := range invalid.Problems {
		if p.File == "" {
			p.File = file
		}
		out.Problems = append(out.Problems, p)
	}
	return out
}

func badArgument(path, format string, args ...any) error {
	return Invalid(Problem{Path: path, Message: fmt.Sprintf(format, args...)})
}
