// SPDX-License-Identifier: Apache-2.0

package rego

// Occupy takes a processor of a language until release is called.
func Occupy(l *Language) (release func()) {
	l.running <- struct{}{}
	return l.leave
}
