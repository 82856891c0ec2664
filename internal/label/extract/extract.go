// SPDX-License-Identifier: Apache-2.0

// Package extract reads the small languages of extractors: paths of attributes of requests, JSON pointers and path
// templates. It parses and matches; what takes values from requests is in package classify, and documents are
// checked with the same parsers.
package extract

import (
	"fmt"
	"strings"
)

// Field is a part of a request.
type Field uint8

// The fields, with the paths that name them.
const (
	_                  Field = iota
	ID                       // request.http.id
	Method                   // request.http.method
	Path                     // request.http.path, with the query
	Host                     // request.http.host
	Protocol                 // request.http.protocol
	Body                     // request.http.body
	Bearer                   // request.http.bearer: of the header authorization, what follows "Bearer "
	Header                   // request.http.headers.<name>
	Source                   // source.address: address and port, or the path of a socket
	SourceAddress            // source.address.socketAddress.address
	SourcePort               // source.address.socketAddress.portValue
	SourcePipe               // source.address.pipe.path
	Destination              // destination.address
	DestinationAddress       // destination.address.socketAddress.address
	DestinationPort          // destination.address.socketAddress.portValue
	DestinationPipe          // destination.address.pipe.path
	Metadata                 // metadataContext.filterMetadata.<path>
)

// Attribute is a part of a request that an extractor reads.
type Attribute struct {
	Field Field
	// Name of a Header, in lower case.
	Name string
	// Path of Metadata: the names between the dots. A key of the metadata may have dots itself.
	Path []string
}

const (
	headersPrefix  = "request.http.headers."
	metadataPrefix = "metadataContext.filterMetadata."
)

var fields = map[string]Field{
	"request.http.id": ID, "request.http.method": Method, "request.http.path": Path, "request.http.host": Host,
	"request.http.protocol": Protocol, "request.http.body": Body, "request.http.bearer": Bearer,
	"source.address": Source, "source.address.socketAddress.address": SourceAddress,
	"source.address.socketAddress.portValue": SourcePort, "source.address.pipe.path": SourcePipe,
	"source.socketAddress.address": SourceAddress, "source.socketAddress.port": SourcePort,
	"destination.address": Destination, "destination.address.socketAddress.address": DestinationAddress,
	"destination.address.socketAddress.portValue": DestinationPort, "destination.address.pipe.path": DestinationPipe,
	"destination.socketAddress.address": DestinationAddress, "destination.socketAddress.port": DestinationPort,
}

// Known are paths of attributes to suggest from; <name> stands for a name.
var Known = []string{
	"request.http.method", "request.http.path", "request.http.host", "request.http.protocol", "request.http.id",
	"request.http.body", "request.http.bearer", headersPrefix + "<name>",
	"source.address", "source.address.socketAddress.address", "source.address.socketAddress.portValue",
	"destination.address", "destination.address.socketAddress.address", "destination.address.socketAddress.portValue",
	metadataPrefix + "<name>",
}

// Words list the paths of attributes in few words.
const Words = "request.http.{id,method,path,host,protocol,body,bearer}, " + headersPrefix + "<name>, source.address, " +
	"destination.address or " + metadataPrefix + "<name>"

// Error is a mistake in one of the languages.
type Error struct {
	// Message says what is wrong, Want what would be right and Hint what to do; Want and Hint may be empty.
	Message, Want, Hint string
}

// Error implements error.
func (e *Error) Error() string {
	parts := []string{e.Message}
	if e.Want != "" {
		parts = append(parts, "want "+e.Want)
	}
	if e.Hint != "" {
		parts = append(parts, e.Hint)
	}
	return strings.Join(parts, "; ")
}

// ParseAttribute reads the path of an attribute. The error is an *Error.
func ParseAttribute(path string) (Attribute, error) {
	if field, ok := fields[path]; ok {
		return Attribute{Field: field}, nil
	}
	if name, ok := strings.CutPrefix(path, headersPrefix); ok {
		return parseHeader(name)
	}
	if rest, ok := strings.CutPrefix(path, metadataPrefix); ok {
		names := strings.Split(rest, ".")
		for _, name := range names {
			if name == "" {
				return Attribute{}, &Error{Message: "an empty name between dots"}
			}
		}
		return Attribute{Field: Metadata, Path: names}, nil
	}
	problem := &Error{Message: "no such attribute"}
	switch {
	case strings.HasPrefix(path, "input.attributes."):
		problem.Hint = fmt.Sprintf("did you mean %q?", strings.TrimPrefix(path, "input.attributes."))
	case path == "request.http.scheme" || path == "request.http.size":
		problem.Hint = "extractors cannot read it; use cel: " + strings.Replace(path, ".http", "", 1)
	case strings.HasPrefix(path, "request.http.header") || strings.HasPrefix(path, "request.headers"):
		problem.Want = headersPrefix + "<name>"
	case strings.HasPrefix(path, "labels."):
		problem.Hint = fmt.Sprintf("use cel: labels[%q]", strings.TrimPrefix(path, "labels."))
	}
	return Attribute{}, problem
}

func parseHeader(name string) (Attribute, error) {
	switch lower := strings.ToLower(name); {
	case name == "":
		return Attribute{}, &Error{Message: "the name of the header is missing"}
	case lower != name:
		return Attribute{}, &Error{Message: "names of headers are in lower case", Hint: fmt.Sprintf("write %q", headersPrefix+lower)}
	case strings.ContainsAny(name, " \t:,;\"/\\{}()[]<>@=?"):
		return Attribute{}, &Error{Message: fmt.Sprintf("%q is not the name of a header", name)}
	}
	return Attribute{Field: Header, Name: name}, nil
}

// ParseAddress reads the path of an address: source.address or destination.address. The error is an *Error.
func ParseAddress(path string) (Attribute, error) {
	a, err := ParseAttribute(path)
	if err == nil && (a.Field == Source || a.Field == Destination) {
		return a, nil
	}
	return Attribute{}, &Error{Message: "not an address", Want: "source.address or destination.address"}
}
