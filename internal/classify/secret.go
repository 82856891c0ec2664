// SPDX-License-Identifier: Apache-2.0

package classify

import (
	"fmt"
	"net/url"
	"strings"
)

// Hidden stands for a value that is nobody's business.
func Hidden(value string) string { return fmt.Sprintf("(hidden, %d bytes)", len(value)) }

// WithoutSecrets is a copy of the request in which the values of headers and of parts of the query whose names say that
// they are secrets are hidden. The body is as it is. Unlike methods, it may be called while others use the request.
func (r *Request) WithoutSecrets() *Request {
	out := &Request{
		ID: r.ID, Method: r.Method, Path: ShowPath(r.Path), Host: r.Host, Scheme: r.Scheme, Protocol: r.Protocol,
		Headers: make(map[string]string, len(r.Headers)), Size: r.Size, Body: r.Body, Source: r.Source, Destination: r.Destination,
		SourceServices: r.SourceServices, DestinationServices: r.DestinationServices, Discovered: r.Discovered,
		Metadata: r.Metadata, Envoy: r.Envoy,
	}
	for name, value := range r.Headers {
		out.Headers[name] = ShowHeader(name, value)
	}
	return out
}

// ShowLabel is the value of a label that requests have, with secrets hidden. What classifiers and callers put into labels
// of their own is theirs to know.
func ShowLabel(key, value string) string {
	if name, ok := strings.CutPrefix(key, headerPrefix); ok {
		return ShowHeader(name, value)
	}
	if key == keyTarget || key == keyPath {
		return ShowPath(value)
	}
	return value
}

// ShowHeader is the value of a header, by its name or the end of its label, hidden if the name says that it is a secret.
// Any header may have the path of a request or another address in it.
func ShowHeader(name, value string) string {
	if IsSecret(name) {
		return Hidden(value)
	}
	return ShowPath(value)
}

// ShowPath hides the secrets in the query of a path.
func ShowPath(path string) string {
	at := strings.IndexByte(path, '?')
	if at < 0 {
		return path
	}
	query := path[at+1:]
	parts := strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' })
	changed := false
	for i, p := range parts {
		name, value, _ := strings.Cut(p, "=")
		if plain, err := url.QueryUnescape(name); value != "" && (err != nil || IsSecret(plain)) {
			parts[i], changed = name+"=(hidden)", true
		}
	}
	if !changed {
		return path
	}
	return path[:at+1] + strings.Join(parts, "&")
}

// secretWords are words in the names of what is nobody's business. Their plurals are not: "tokens" is a cost.
var secretWords = map[string]bool{
	"authorization": true, "bearer": true, "cookie": true, "credential": true, "credentials": true, "jwt": true,
	"passwd": true, "password": true, "pwd": true, "secret": true, "session": true, "sessionid": true, "sid": true, "sig": true,
	"signature": true, "token": true, "apikey": true, "key": true,
}

// aboutAuth are last words of names with the word "auth" that tell about who asks, or how that was found out, and are no
// secrets: x-auth-request-email, x-envoy-auth-partial-body. With any other last word, such a name is that of a secret.
var aboutAuth = map[string]bool{
	"allowed": true, "body": true, "date": true, "email": true, "group": true, "groups": true, "id": true, "level": true,
	"method": true, "mode": true, "provider": true, "realm": true, "redirect": true, "result": true, "role": true, "roles": true,
	"scheme": true, "scope": true, "scopes": true, "status": true, "time": true, "type": true, "uri": true, "url": true,
	"user": true, "username": true, "version": true,
}

// IsSecret tells whether a name, such as x-api-key or accessToken, is that of a secret.
func IsSecret(name string) bool {
	if name == "code" { // of OAuth
		return true
	}
	auth, about := false, false
	word := make([]byte, 0, 32)
	for i := 0; i <= len(name); i++ {
		letter := i < len(name) && (name[i]|0x20 >= 'a' && name[i]|0x20 <= 'z' || name[i] >= '0' && name[i] <= '9')
		hump := letter && i > 0 && name[i] <= 'Z' && name[i] >= 'A' && name[i-1] >= 'a'
		if (!letter || hump) && len(word) > 0 {
			if secretWords[string(word)] || secretEnd(word) {
				return true
			}
			auth, about = auth || string(word) == "auth", aboutAuth[string(word)]
			word = word[:0]
		}
		if letter && len(word) < cap(word) {
			word = append(word, name[i]|0x20)
		}
	}
	return auth && !about
}

// secretEnd finds secrets whose name is written as one word, such as csrftoken.
func secretEnd(word []byte) bool {
	for _, end := range [...]string{"token", "password", "passwd", "secret", "apikey", "cookie"} {
		if len(word) > len(end) && string(word[len(word)-len(end):]) == end {
			return true
		}
	}
	return false
}
