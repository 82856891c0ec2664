// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/sluice-project/sluice/internal/fielderr"
	"github.com/sluice-project/sluice/internal/policy/strict"
)

// StatusCode is the HTTP status that a denied caller should see. Documents write its name, such as
// TooManyRequests, or its number.
type StatusCode int

var (
	_ strict.Scalar  = (*StatusCode)(nil)
	_ strict.Wanted  = (*StatusCode)(nil)
	_ json.Marshaler = StatusCode(0)
)

// statusNumbers are the names a document may use. 1xx is missing: it does not end a request.
var statusNumbers = map[string]StatusCode{
	"OK": 200, "Created": 201, "Accepted": 202, "NonAuthoritativeInformation": 203, "NoContent": 204,
	"ResetContent": 205, "PartialContent": 206, "MultiStatus": 207, "AlreadyReported": 208, "IMUsed": 226,
	"MultipleChoices": 300, "MovedPermanently": 301, "Found": 302, "SeeOther": 303, "NotModified": 304,
	"UseProxy": 305, "TemporaryRedirect": 307, "PermanentRedirect": 308,
	"BadRequest": 400, "Unauthorized": 401, "PaymentRequired": 402, "Forbidden": 403, "NotFound": 404,
	"MethodNotAllowed": 405, "NotAcceptable": 406, "ProxyAuthenticationRequired": 407, "RequestTimeout": 408,
	"Conflict": 409, "Gone": 410, "LengthRequired": 411, "PreconditionFailed": 412, "PayloadTooLarge": 413,
	"URITooLong": 414, "UnsupportedMediaType": 415, "RangeNotSatisfiable": 416, "ExpectationFailed": 417,
	"MisdirectedRequest": 421, "UnprocessableEntity": 422, "Locked": 423, "FailedDependency": 424,
	"UpgradeRequired": 426, "PreconditionRequired": 428, "TooManyRequests": 429,
	"RequestHeaderFieldsTooLarge": 431,
	"InternalServerError":         500, "NotImplemented": 501, "BadGateway": 502, "ServiceUnavailable": 503,
	"GatewayTimeout": 504, "HTTPVersionNotSupported": 505, "VariantAlsoNegotiates": 506,
	"InsufficientStorage": 507, "LoopDetected": 508, "NotExtended": 510, "NetworkAuthenticationRequired": 511,
}

var statusNames = func() map[StatusCode]string {
	names := make(map[StatusCode]string, len(statusNumbers))
	for name, number := range statusNumbers {
		names[number] = name
	}
	return names
}()

// StatusNames lists the names a document may use, by number.
func StatusNames() []string {
	return slices.SortedFunc(maps.Keys(statusNumbers), func(a, b string) int {
		return int(statusNumbers[a] - statusNumbers[b])
	})
}

// String is the name of the status; the number when it has none.
func (s StatusCode) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return strconv.Itoa(int(s))
}

// MarshalJSON writes the name.
func (s StatusCode) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// Want says what a document should hold.
func (*StatusCode) Want() string { return "an HTTP status such as TooManyRequests or 429" }

// DecodeScalar reads a name or a number.
func (s *StatusCode) DecodeScalar(n *strict.Node) *fielderr.Error {
	problem := &fielderr.Error{Want: s.Want()}
	if i, ok := n.Int(); ok {
		if _, known := statusNames[StatusCode(i)]; known {
			*s = StatusCode(i)
			return nil
		}
		return problem
	}
	number, known := statusNumbers[n.Text]
	if n.Kind != strict.Text || !known {
		problem.Hint = fielderr.DidYouMean(n.Text, StatusNames())
		return problem
	}
	*s = number
	return nil
}

var _ fmt.Stringer = StatusCode(0)
