// SPDX-License-Identifier: Apache-2.0

package rego

import (
	"encoding/json"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/sluice-project/sluice/internal/classify"
)

// InputJSON is the input that modules see of a request, for people to look at. No more than limit bytes of the body
// count.
func InputJSON(r *classify.Request, limit int) ([]byte, error) {
	v, err := ast.JSON(inputOf(&classify.Input{Request: r}, needAll, limit))
	if err != nil {
		return nil, fmt.Errorf("input of classifiers: %w", err)
	}
	return json.Marshal(v)
}
