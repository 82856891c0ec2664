// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Kind says which cache is meant.
type Kind uint8

// The kinds. Zero is none.
const (
	KindUnspecified Kind = iota
	Result               // scoped to a control point
	Global               // shared by control points
)

// String is the value of the label type of metrics.
func (k Kind) String() string { return [...]string{"unspecified", "result", "global"}[k] }

// Key finds a value. Keys that differ in any field are different keys, whatever characters the fields have.
type Key struct {
	Kind Kind
	// Tenant is the value of the tenant label; "" is a tenant like any other.
	Tenant string
	// ControlPoint is empty for global keys.
	ControlPoint string
	// Name is what the caller calls it.
	Name string
}

// ResultKey is the key of a result.
func ResultKey(tenant, controlPoint, name string) Key { return Key{Result, tenant, controlPoint, name} }

// GlobalKey is the key of a value that control points share.
func GlobalKey(tenant, name string) Key { return Key{Kind: Global, Tenant: tenant, Name: name} }

// Append appends the key as bytes, for stores outside of this process. Every field comes with its length, so
// that different keys have different bytes, and none is the beginning of another.
func (k Key) Append(b []byte) []byte {
	b = append(b, byte(k.Kind))
	for _, field := range [...]string{k.Tenant, k.ControlPoint, k.Name} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	return b
}

// clone copies the texts into one string of their own: those of a request may be part of something larger.
func (k Key) clone() Key {
	var b strings.Builder
	b.Grow(len(k.Tenant) + len(k.ControlPoint) + len(k.Name))
	b.WriteString(k.Tenant)
	b.WriteString(k.ControlPoint)
	b.WriteString(k.Name)
	all := b.String()
	point := len(k.Tenant)
	name := point + len(k.ControlPoint)
	return Key{Kind: k.Kind, Tenant: all[:point], ControlPoint: all[point:name], Name: all[name:]}
}

// ErrNotReady tells that there is no cache. Aperture's clients know it by its text, as they do those of keys
// and control points that are empty.
var ErrNotReady = errors.New("cache is not ready")

// InvalidError tells what is wrong with what the caller asked for.
type InvalidError struct{ text string }

// Error implements error.
func (e *InvalidError) Error() string { return e.text }

// IsInvalid tells whether an error is the mistake of the caller, and not one of the store.
func IsInvalid(err error) bool { return errors.As(err, new(*InvalidError)) }

func invalid(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

var (
	errKeyEmpty          = invalid("cache key cannot be empty")
	errControlPointEmpty = invalid("cache control_point cannot be empty")
)

// check tells what is wrong with a key.
func (k *Key) check() error {
	switch {
	case k.Name == "":
		return errKeyEmpty
	case k.Kind == Result && k.ControlPoint == "":
		return errControlPointEmpty
	case len(k.Name) > MaxKeyBytes:
		return invalid("cache key has %d bytes; expected at most %d: use a hash of it", len(k.Name), MaxKeyBytes)
	case len(k.ControlPoint) > MaxControlPointBytes:
		return invalid("cache control_point has %d bytes; expected at most %d", len(k.ControlPoint), MaxControlPointBytes)
	case len(k.Tenant) > MaxKeyBytes:
		return invalid("cache tenant has %d bytes; expected at most %d", len(k.Tenant), MaxKeyBytes)
	}
	return nil
}
