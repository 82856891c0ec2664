// SPDX-License-Identifier: Apache-2.0

// Package archtest holds the rules about the repository that no compiler checks: which package may
// import which, what the pure packages stay away from, and what every file must carry.
//
// A rule is a function of the repository's files, so that it runs on the repository and on made-up ones
// alike: each has a script in testdata that breaks it and says what it must find. The files are parsed
// here instead of asking `go list`, whose reads the test cache does not see: it would go on reporting
// success after a rule was broken.
//
// To add a rule, write the function, add it to Rules and add testdata/<name>.txtar. To add a package, add
// it to the table in layers.go.
package archtest

// Rule is something that must hold everywhere in the repository.
type Rule struct {
	// Name is what the rule's subtest and its script in testdata are called.
	Name string
	// Find returns what breaks the rule, each as "file:line: what is wrong and what to do instead".
	Find func(*Repo) []string
}

// Rules returns all rules.
func Rules() []Rule {
	return []Rule{
		{"layers", findLayers},
		{"access", findAccess},
		{"pure", findPure},
		{"package-comment", findPackageComment},
		{"licence", findLicence},
		{"replace", findReplace},
		{"init", findInit},
		{"sleep", findSleep},
		{"dependencies", findDependencies},
		{"links", findLinks},
	}
}
