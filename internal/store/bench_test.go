// SPDX-License-Identifier: Apache-2.0

package store

import (
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/store/storetest"
)

func BenchmarkAppend(b *testing.B) {
	s, err := Open(b.Context(), b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	version := int64(0)
	for b.Loop() {
		version++
		if err := s.Append(b.Context(), storetest.Version("a", version), 1000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, size := range []struct {
		name     string
		versions int64
	}{{"empty", 0}, {"100 MB", 1000}} {
		b.Run(size.name, func(b *testing.B) {
			dir := b.TempDir()
			s, err := Open(b.Context(), dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			for version := range size.versions {
				v := storetest.Version("a", version+1)
				v.Document = strings.Repeat("x", 100_000)
				if err := s.Append(b.Context(), v, 1000); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				s, err := Open(b.Context(), dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
