// SPDX-License-Identifier: Apache-2.0

package document

import (
	"encoding/base64"
	"strconv"
)

// Bounds of a page.
const (
	DefaultPageSize = 100
	MaxPageSize     = 1000
)

// PageRequest asks for one page of a list. The zero value asks for the first.
type PageRequest struct {
	Size  int    // at most this many; 0: DefaultPageSize; more than MaxPageSize: MaxPageSize
	Token string // Page.Next of the page before; empty: the first page
}

// Page is a part of a list of versions, without documents.
type Page struct {
	Versions []Version
	Next     string // PageRequest.Token of the next page; empty: this is the last
}

func (r PageRequest) size() (int, error) {
	switch {
	case r.Size < 0:
		return 0, badArgument("page_size", "got %d, want 0 (the server's choice) to %d", r.Size, MaxPageSize)
	case r.Size == 0:
		return DefaultPageSize, nil
	}
	return min(r.Size, MaxPageSize), nil
}

// nameToken and versionToken make tokens from the last entry of a page. They are encoded only so that
// nobody mistakes them for something to build by hand.
func nameToken(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func versionToken(version int64) string { return nameToken(strconv.FormatInt(version, 10)) }

func parseNameToken(token string) (string, error) {
	name, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || nameToken(string(name)) != token { // even a strict decoder skips line breaks
		return "", badToken(token)
	}
	return string(name), nil
}

// parseVersionToken is 0 for the empty token, else at least 1.
func parseVersionToken(token string) (int64, error) {
	if token == "" {
		return 0, nil
	}
	text, err := parseNameToken(token)
	if err != nil {
		return 0, err
	}
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil || version < 1 {
		return 0, badToken(token)
	}
	return version, nil
}

func badToken(token string) error {
	return badArgument("page_token", "%.40q is not a token of this list: pass next_page_token of the page before, or nothing for the first page", token)
}
