// SPDX-License-Identifier: Apache-2.0

package flow

// Set is everything that Publish puts into force.
type Set struct {
	Limiters    []*LimiterSpec
	Meters      []*MeterSpec
	Classifiers []*ClassifierSpec
}
